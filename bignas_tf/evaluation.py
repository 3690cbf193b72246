"""Accuracy of children: calibrated on some images, evaluated on others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops as K

from bignas_tf import cost
from bignas_tf.calibration import (
    CHUNK,
    MEMORY_LIMIT_MB,
    Gather,
    batch_norm_statistics,
    held_blocks,
)
from bignas_tf.checks import require
from bignas_tf.data import Split
from bignas_tf.ops import INPUT, BatchNorm, last_uses
from bignas_tf.primitives import full_precision
from bignas_tf.resize import prepare
from bignas_tf.shared_prefix import SharedPrefixes
from bignas_tf.spaces import Genotype
from bignas_tf.spec import NetworkSpec
from bignas_tf.stretch import stretch
from bignas_tf.supernet import Supernet
from bignas_tf.weights import slice_weights

BATCH = 256  # images that run at a time


def network(spec: NetworkSpec, weights: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A finished network in inference mode, block after block, without building a model.

    Args:
        spec: the network.
        weights: tensors or arrays by `op/weight`, moving statistics included.

    Returns:
        From images, `(batch, *spec.input_shape)` in the input range -1..1, to logits
        `(batch, classes)`.
    """
    ops = spec.ops()
    last = last_uses(ops)
    blocks, end = [], 0
    for _, block in itertools.groupby(ops, key=lambda op: op.block):
        group = tuple(block)
        end += len(group)
        live = {name for name, index in last.items() if index >= end}
        blocks.append(stretch(group, weights, live))

    def run(images: Any) -> Any:
        tensors = {INPUT: K.convert_to_tensor(images)}
        for block in blocks:
            tensors = block(tensors)
        return tensors[ops[-1].name]

    return run


def forward(spec: NetworkSpec, weights: Mapping[str, Any], images: Any) -> Any:
    """Logits of a finished network; see `network`."""
    return network(spec, weights)(images)


def prepared(split: Split, resolution: int) -> np.ndarray:
    """All images of a split in the input range at `resolution`, float32."""
    streamed = Streamed(split, resolution)
    found = np.empty(streamed.shape, np.float32)
    for start, stop in _spans(len(split)):  # not concatenated: that holds them twice
        found[start:stop] = streamed[start:stop]
    return found


class Streamed:
    """`prepared` images that are made whenever they are asked for, and held by nobody.

    Args:
        split: of the images.
        resolution: in pixels.

    Attributes:
        shape: of all of them, `(images, resolution, resolution, channels)`.
    """

    def __init__(self, split: Split, resolution: int):
        self._split = split
        self._resolution = resolution
        self.shape = (len(split), resolution, resolution, split.image_shape[-1])

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, rows: slice) -> np.ndarray:
        images = self._split.read(np.arange(*rows.indices(len(self))))
        return K.convert_to_numpy(prepare(images, self._resolution))


def prepared_or_streamed(
    split: Split, resolution: int, memory_limit_mb: float = MEMORY_LIMIT_MB
) -> np.ndarray | Streamed:
    """`prepared` images, or the same made anew in each use where they would take more MB."""
    streamed = Streamed(split, resolution)
    fits = _image_mb(streamed.shape) <= memory_limit_mb
    return prepared(split, resolution) if fits else streamed


def batches_of(images: np.ndarray | Streamed) -> Iterator[np.ndarray]:
    """Images in order, in parts that a network runs at a time."""
    for start, stop in _spans(len(images)):
        yield images[start:stop]


def _spans(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


def predict(
    spec: NetworkSpec, weights: Mapping[str, Any], images: np.ndarray | Streamed
) -> np.ndarray:
    """Logits of all images, `(images, classes)`; see `network`."""
    run = network(spec, {path: K.convert_to_tensor(value) for path, value in weights.items()})
    with full_precision():
        found = [K.convert_to_numpy(run(batch)) for batch in batches_of(images)]
    return np.concatenate(found)


def correct(
    spec: NetworkSpec,
    weights: Mapping[str, Any],
    images: np.ndarray | Streamed,
    labels: np.ndarray,
) -> np.ndarray:
    """Whether the top class is right, bool `(images,)`."""
    return predict(spec, weights, images).argmax(axis=-1) == labels


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy of `(images, classes)` logits, in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())


def evaluation_mb(
    spec: NetworkSpec, calibration: int, validation: int, memory_limit_mb: float = MEMORY_LIMIT_MB
) -> float:
    """About how much memory `ChildEvaluator` takes for a child, in MB.

    Args:
        spec: of the child.
        calibration: images.
        validation: images.
        memory_limit_mb: as of `ChildEvaluator`.
    """
    image = _image_mb(spec.input_shape)
    images = image * calibration
    if image * validation <= memory_limit_mb:
        images += image * validation
    profile = cost.profile(spec)
    read, block = [], ""  # by each block, of one image
    for op in profile.ops:
        if op.block != block:
            read.append((op.live_bytes - op.output_bytes) / 1e6)
            block = op.block
    peak = profile.total.peak_activation_bytes / 1e6
    if peak * (calibration + validation) <= memory_limit_mb:
        kept = min(sum(read) * (calibration + validation), memory_limit_mb)
        return images + peak * (calibration + validation) + kept
    blocks = [mb for _, mb in held_blocks(spec, calibration, memory_limit_mb)]
    held = max(map(sum, itertools.pairwise([0.0, *blocks, 0.0])))
    return images + held * calibration + peak * CHUNK


def _image_mb(shape: Sequence[int]) -> float:
    return 4 * float(np.prod(shape)) / 1e6


def metrics_of(spec: NetworkSpec, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy (0..1), mean cross-entropy, MMACs and parameters (M) of a network."""
    counted = cost.count(spec)
    return {
        "accuracy": float((logits.argmax(axis=-1) == labels).mean()),
        "loss": cross_entropy(logits, labels),
        "mmacs": counted.mmacs,
        "params_m": counted.params_m,
    }


def sliced_statistics(
    statistics: Mapping[str, np.ndarray], spec: NetworkSpec
) -> dict[str, np.ndarray]:
    """The first channels of a bigger child's batch-norm statistics, by `op/moving_*`."""
    return {
        f"{op.name}/{name}": statistics[f"{op.name}/{name}"][: op.channels]
        for op in spec.ops()
        if isinstance(op, BatchNorm)
        for name in ("moving_mean", "moving_variance")
    }


def _chunks(images: np.ndarray | Streamed) -> list[Any]:
    return [K.convert_to_tensor(batch) for batch in batches_of(images)]


class ChildEvaluator:
    """Scores genotypes by slicing, calibrating and evaluating; no training anywhere.

    A child goes on from where it departs from the one before (`shared_prefix`): score those
    that begin alike in a row.

    Args:
        supernet: the trained supernet.
        calibration: training images that the statistics are estimated from.
        validation: held-out training images that the accuracy is measured on.
        split: what the validation images are called in reports.
        memory_limit_mb: of the activations that a child's calibration and evaluation hold at
            once, and again of those that the next may go on from; a child that needs more is
            calibrated block by block and shares nothing. Validation images that are more, as
            float32 at a child's resolution, are prepared anew for each child.
        gather: of workers that score the same children together, each on images of its own:
            statistics and scores are those of all images. None for a single one.
    """

    def __init__(
        self,
        supernet: Supernet,
        calibration: Split,
        validation: Split,
        split: str = "held-out training",
        memory_limit_mb: float = MEMORY_LIMIT_MB,
        gather: Gather | None = None,
    ):
        self.supernet = supernet
        self.split = split
        self._gather = gather
        self._weights = supernet.weight_arrays()
        self._calibration = calibration
        self._validation = validation
        self._memory_limit_mb = memory_limit_mb
        # Workers whose shares differ by an image must go the same ways.
        counts = np.array([len(calibration), len(validation)], float)
        self._counts = (counts if gather is None else gather(counts).max(axis=0)).tolist()
        self._images: dict[int, tuple[np.ndarray, np.ndarray | Streamed]] = {}
        self._prefixes = SharedPrefixes(self._weights, memory_limit_mb, self._counts, gather)
        self._donor: tuple[Genotype, dict[str, np.ndarray]] | None = None

    def score(self, genotypes: Sequence[Genotype]) -> list[dict[str, float]]:
        """Accuracy (0..1), mean cross-entropy, MMACs and parameters (M) of each genotype."""
        labels = self._validation.labels
        found = [metrics_of(each.spec(), self.logits(each), labels) for each in genotypes]
        if self._gather:
            for metrics in found:
                own = [metrics["accuracy"], metrics["loss"], 1.0]
                parts = self._gather(np.asarray(own) * len(labels)).sum(axis=0)
                metrics["accuracy"], metrics["loss"] = map(float, parts[:2] / parts[2])
        return found

    def finished_weights(self, genotype: Genotype) -> dict[str, np.ndarray]:
        """Weights of the child with its calibrated statistics, by `op/weight`."""
        calibration, _ = self._at(genotype)
        weights = slice_weights(self._weights, genotype.spec().ops())
        return weights | batch_norm_statistics(
            genotype.spec(),
            weights,
            calibration,
            memory_limit_mb=self._memory_limit_mb,
            gather=self._gather,
        )

    def logits(self, genotype: Genotype, donor: Genotype | None = None) -> np.ndarray:
        """Logits of a child on the validation images, `(images, classes)`.

        Args:
            genotype: the child.
            donor: a bigger child whose statistics, first channels, it gets uncalibrated;
                None calibrates it.
        """
        spec = genotype.spec()
        if donor is None:
            images = self._at(genotype)
            needed_mb = cost.count(spec).peak_activation_bytes * sum(self._counts) / 1e6
            if needed_mb <= self._memory_limit_mb:
                with full_precision():
                    return self._prefixes.logits(spec, *map(_chunks, images))
            weights = self.finished_weights(genotype)
        else:
            if self._donor is None or self._donor[0] != donor:
                self._donor = donor, self.finished_weights(donor)
            weights = slice_weights(self._weights, spec.ops())
            weights |= sliced_statistics(self._donor[1], spec)
        return predict(spec, weights, self._at(genotype)[1])

    def _at(self, genotype: Genotype) -> tuple[np.ndarray, np.ndarray | Streamed]:
        """Calibration and validation images at the child's resolution; the last ones are kept."""
        space = self.supernet.space
        require(genotype in space, "genotype", f"of space '{space.name}'", genotype)
        resolution = genotype["resolution"]
        if resolution not in self._images:
            if len(self._images) >= 2:
                self._images.pop(next(iter(self._images)))
            self._images[resolution] = (
                prepared(self._calibration, resolution),
                prepared_or_streamed(self._validation, resolution, self._memory_limit_mb),
            )
        return self._images[resolution]
