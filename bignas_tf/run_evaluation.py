"""The accuracies of a finished run: its children, its extremes, and what to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tqdm

from bignas_tf import cost
from bignas_tf.data import Source, Split
from bignas_tf.evaluation import (
    batches_of,
    correct,
    prepared_or_streamed,
    sliced_statistics,
)
from bignas_tf.files import read_json
from bignas_tf.intervals import wilson_interval
from bignas_tf.masked_evaluation import child_evaluator
from bignas_tf.primitives import full_precision
from bignas_tf.spaces import Genotype
from bignas_tf.spec import NetworkSpec
from bignas_tf.supernet import Supernet


def accuracy_row(right: np.ndarray) -> dict[str, Any]:
    """Top-1 accuracy (0..1) with its 95 % interval over images."""
    top1 = float(right.mean())
    return {"top1": top1, "top1_interval": list(wilson_interval(top1, len(right)))}


class RunEvaluation:
    """Evaluates extracted children on test images that nothing else has seen.

    Args:
        supernet: that the children were cut from.
        calibration: training images, for the supernet's biggest and smallest child.
        source: whose test images are used.
    """

    def __init__(self, supernet: Supernet, calibration: Split, source: Source):
        self._space = supernet.space
        self._evaluator = child_evaluator(supernet, calibration, source.test, split="test")
        self._source = source
        self._biggest = self._evaluator.finished_weights(self._space.biggest())

    def run(self, children: Sequence[Path], baseline: Split | None = None) -> dict[str, Any]:
        """All accuracies, as evaluation.json has them.

        Args:
            children: `.keras` files.
            baseline: images that a logistic regression is fitted to; None for none.
        """
        test = self._source.test
        result: dict[str, Any] = {
            "split": "test",
            "images": len(test),
            "classes": list(self._source.classes),
            "children": {},
            "baselines": {},
        }
        for path in tqdm.tqdm(children, desc="evaluating", unit="child", disable=None):
            result["children"][path.stem] = self._child(path)
        for name in ("biggest", "smallest"):
            result[name] = self._extreme(getattr(self._space, name)())
        if baseline is not None:
            right = logistic_regression(baseline, test)
            result["baselines"]["logistic regression"] = accuracy_row(right)
        return result

    def _child(self, path: Path) -> dict[str, Any]:
        """A saved child as it is, and with the biggest child's statistics instead."""
        child = keras.models.load_model(path, compile=False)
        described = read_json(path.with_suffix(".json"))
        spec = NetworkSpec.from_json(described["spec"])
        weights = {variable.path: np.asarray(variable) for variable in child.variables}
        images = prepared_or_streamed(self._source.test, spec.input_shape[0])
        labels = self._source.test.labels
        with full_precision():
            parts = [child.predict(batch, verbose=0) for batch in batches_of(images)]
        logits = np.concatenate(parts)
        row = accuracy_row(logits.argmax(-1) == labels)
        stale = weights | sliced_statistics(self._biggest, spec)
        row["top1_uncalibrated"] = float(correct(spec, stale, images, labels).mean())
        return row | {key: described[key] for key in ("genotype", "weights") if key in described}

    def _extreme(self, genotype: Genotype) -> dict[str, Any]:
        labels = self._source.test.labels
        row = accuracy_row(self._evaluator.logits(genotype).argmax(-1) == labels)
        row["mmacs"] = cost.count(genotype.spec()).mmacs
        biggest = self._space.biggest()
        if genotype != biggest:  # whose own statistics are calibrated
            stale = self._evaluator.logits(genotype, donor=biggest).argmax(-1)
            row["top1_uncalibrated"] = float((stale == labels).mean())
        return row


def logistic_regression(train: Split, test: Split) -> np.ndarray:
    """Whether scikit-learn's logistic regression on pixels gets each test image right."""
    from sklearn.linear_model import LogisticRegression

    def pixels(split: Split) -> np.ndarray:
        return split.read(np.arange(len(split))).reshape(len(split), -1) / 255.0

    model = LogisticRegression(max_iter=1000).fit(pixels(train), train.labels)
    return model.predict(pixels(test)) == test.labels
