"""Accuracy of a finished model on a source's test images: top 1, top 5, per class."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tqdm

from bignas_tf.data import Source
from bignas_tf.deploy.preprocessing import in_range, range_of
from bignas_tf.deploy.runner import Runner
from bignas_tf.evaluation import BATCH, prepared
from bignas_tf.intervals import Interval, wilson_interval

TOP = 5
_SHOWN = 40  # classes in the table; of more, the worst


@dataclasses.dataclass(frozen=True)
class FileEvaluation:
    """How many test images a model classifies rightly.

    Attributes:
        images: int.
        top1: float in [0, 1].
        top1_interval: 95 % interval over images.
        top5: float in [0, 1], share of images whose class is among the best five; None
            where there are no more than five classes.
        per_class: label -> images, how many of them are right (`top1`, a share) and how many
            images of other classes are taken for it (`taken_for`).
    """

    images: int
    top1: float
    top1_interval: Interval
    top5: float | None
    per_class: dict[str, dict[str, Any]]

    def summary(self) -> str:
        """One line for people."""
        low, high = self.top1_interval
        top5 = "" if self.top5 is None else f", top 5 {self.top5:.2%}"
        return f"{self.top1:.2%} ({low:.2%} to {high:.2%}){top5} of {self.images} test images"

    def table(self) -> str:
        """Aligned text, one line per class; of many classes the worst."""
        rows = list(self.per_class.items())
        note = ""
        if len(rows) > _SHOWN:
            note = f"\nthe {_SHOWN} lowest of {len(rows)} classes"
            tested = [row for row in rows if row[1]["images"]]
            rows = sorted(tested, key=lambda row: row[1]["top1"])[:_SHOWN]
        width = max(5, *(len(label) for label, _ in rows))
        lines = [f"{'class':{width}}  images    top 1  taken for it"]
        for label, row in rows:
            share = "-" if row["top1"] is None else f"{row['top1']:.2%}"
            lines.append(f"{label:{width}}  {row['images']:6}  {share:>7}  {row['taken_for']:12}")
        return "\n".join(lines) + note


def evaluate(runner: Runner, source: Source, *, progress: bool = False) -> FileEvaluation:
    """Runs a model on a source's test images, preprocessed as its JSON says.

    Args:
        runner: the model.
        source: whose test images are used; its classes must be the model's.
        progress: bool, shows a progress bar where stderr is a terminal.

    Raises:
        ValueError: if the classes differ, in name where the JSON has labels, or in number, or
            the JSON says that the weights are random.
    """
    if runner.metadata.get("preset") and runner.metadata.get("weights") is None:
        raise ValueError(
            "`model` must have been trained: the JSON says that the weights of preset "
            f"{runner.metadata['preset']} in it are random. Received: {runner.path}"
        )
    classes = list(source.classes)
    known = runner.metadata.get("labels")
    if known is not None and known != classes:
        raise ValueError(
            f"`data` must have the classes of {runner.path}, {', '.join(known)}. "
            f"Received: {', '.join(classes)}"
        )
    return judged(_scores(runner, source, progress), source.test.labels, classes)


def _scores(runner: Runner, source: Source, progress: bool) -> np.ndarray:
    input_range, count = range_of(runner.metadata), len(source.test)
    outputs = []
    with tqdm.tqdm(
        total=count, desc="evaluating", unit="image", disable=None if progress else True
    ) as bar:
        for start in range(0, count, BATCH):
            part = source.test.take(np.arange(start, min(start + BATCH, count)))
            images = in_range(prepared(part, runner.shape[0]), input_range)
            scores = runner.predict(images)
            if scores.shape[1:] != (len(source.classes),):
                raise ValueError(
                    f"`data` must have as many classes as {runner.path}, {scores.shape[-1]}. "
                    f"Received: {len(source.classes)}"
                )
            outputs.append(scores)
            bar.update(len(part))
    return np.concatenate(outputs)


def judged(scores: np.ndarray, labels: np.ndarray, classes: list[str]) -> FileEvaluation:
    """Compares scores with labels.

    Args:
        scores: `(images, classes)`.
        labels: int `(images,)`.
        classes: their names.
    """
    # Stable: of equal scores, which int8 has, the first counts, as argmax has it.
    best = np.argsort(-scores, axis=-1, kind="stable")[:, :TOP]
    right = best[:, 0] == labels
    top1 = float(right.mean())
    per_class = {}
    for index, label in enumerate(classes):
        own = labels == index
        per_class[label] = {
            "images": int(own.sum()),
            "top1": float(right[own].mean()) if own.any() else None,
            "taken_for": int(np.sum((best[:, 0] == index) & ~own)),
        }
    top5 = float(np.any(best == labels[:, None], axis=-1).mean()) if len(classes) > TOP else None
    return FileEvaluation(len(labels), top1, wilson_interval(top1, len(labels)), top5, per_class)
