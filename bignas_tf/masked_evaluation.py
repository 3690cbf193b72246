"""Scoring children under XLA: sizes are masks, so that no genotype is compiled for.

The arithmetic is that of `bignas_tf.calibration`: every batch norm's statistics over all
images, pooled in float64, with every earlier layer already on its final statistics.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops as K

from bignas_tf import evaluation
from bignas_tf.calibration import CHUNK, MEMORY_LIMIT_MB, PooledMoments
from bignas_tf.checks import require
from bignas_tf.data import Split
from bignas_tf.masked_programs import MaskedPrograms, Moments, masked_programs
from bignas_tf.ops import INPUT, BatchNorm
from bignas_tf.spaces import Genotype
from bignas_tf.spaces.sizes import CHANNELS, size_table
from bignas_tf.supernet import Supernet
from bignas_tf.weights import slice_weights

Chunk = tuple[Any, np.int32]


def child_evaluator(
    supernet: Supernet,
    calibration: Split,
    validation: Split,
    split: str = "held-out training",
    memory_limit_mb: float = MEMORY_LIMIT_MB,
) -> evaluation.ChildEvaluator | MaskedEvaluator:
    """The evaluator that suits Keras's backend; arguments are those of `ChildEvaluator`."""
    masked = keras.backend.backend() == "jax"
    evaluator = MaskedEvaluator if masked else evaluation.ChildEvaluator
    return evaluator(supernet, calibration, validation, split, memory_limit_mb)


def _chunks(split: Split) -> list[Chunk]:
    """All images in chunks of one size, so that nothing is compiled for the last of them.

    Returns:
        Pairs of uint8 images on the device and how many of them count: the last chunk is
        filled up with its last image.
    """
    count = len(split)
    size = -(-count // -(-count // CHUNK))
    chunks = []
    for start in range(0, count, size):
        indices = np.minimum(np.arange(start, start + size), count - 1)
        images = K.convert_to_tensor(split.read(indices))
        chunks.append((images, np.int32(min(size, count - start))))
    return chunks


class _Calibration:
    """Finds the statistics of one child, batch norm by batch norm.

    Args:
        programs: of the space.
        weights: of each of their segments.
        table: size table of the child.
        resolution: of the child, in pixels.
        chunks: of the images.
        memory_limit_mb: of what is held of the chunks that do not run.

    Attributes:
        statistics: mean and variance by name of the batch norm, on the device, as wide as
            the biggest child's.
    """

    def __init__(
        self,
        programs: MaskedPrograms,
        weights: Sequence[Mapping[str, Any]],
        table: np.ndarray,
        resolution: int,
        chunks: Sequence[Chunk],
        memory_limit_mb: float,
    ):
        self.programs = programs
        self.weights = weights
        self.table = table
        self.device_table = K.convert_to_tensor(table)
        self.resolution = resolution
        self.chunks = chunks
        self.memory_limit_mb = memory_limit_mb
        self.statistics: dict[str, Moments] = {}
        # Live tensors of every chunk after the first `_done` segments; none before the first.
        self._held: list[dict[str, Any]] = []
        self._done = 0

    def run(self) -> None:
        """Settles all batch norms in order."""
        for number, index in enumerate(self.programs.norms):
            self._settle(index, self._advance(number + 1))

    def _advance(self, upto: int) -> PooledMoments:
        """Runs all chunks through the first `upto` segments and pools the last one's moments.

        What lives there is held for the next segment, unless it is too much: then the next
        one starts again from what was held before, in the end from the images.
        """
        moments, held, fits = [], [], True
        for position, (images, count) in enumerate(self.chunks):
            if self._done:
                tensors = self._held[position]
            else:
                tensors = {INPUT: self.programs.prepared(images, self.resolution)}
            for number in range(self._done, upto):
                tensors, found = self._run(number, tensors, count)
            moments.append(found)
            if position == 0:
                held_mb = sum(x.nbytes for x in tensors.values()) / 1e6
                fits = held_mb * (len(self.chunks) - 1) <= self.memory_limit_mb
            if fits:
                held.append(tensors)
                if self._done:
                    self._held[position] = {}
        if fits:
            self._held, self._done = held, upto
        pooled = PooledMoments()
        for chunk in moments:
            counts, means, variances = (K.convert_to_numpy(x) for x in chunk)
            for group in np.flatnonzero(counts):
                pooled.add_moments(int(counts[group]), means[group], variances[group])
        return pooled

    def _run(self, number: int, tensors: dict[str, Any], count: np.int32) -> tuple[Any, Any]:
        before = [self.programs.ops[index].name for index in self.programs.norms[:number][-1:]]
        statistics = {name: self.statistics[name] for name in before}
        segment, weights = self.programs.segments[number], self.weights[number]
        return segment(weights, self.device_table, statistics, tensors, count)

    def take(self, statistics: Mapping[str, Moments]) -> None:
        """Takes the first channels of a bigger child's statistics instead."""
        for index in self.programs.norms:
            moments = statistics[self.programs.ops[index].name]
            self._fix(index, *(np.array(K.convert_to_numpy(x)) for x in moments))

    def _settle(self, index: int, pooled: PooledMoments) -> None:
        dtype = self.programs.supernet.variable_dtype
        self._fix(index, *(x.astype(dtype) for x in (pooled.mean, pooled.variance)))

    def _fix(self, index: int, mean: np.ndarray, variance: np.ndarray) -> None:
        name = self.programs.ops[index].name
        channels = self.table[index, CHANNELS]
        mean[channels:], variance[channels:] = 0, 1  # what is zero there stays zero
        self.statistics[name] = K.convert_to_tensor(mean), K.convert_to_tensor(variance)


class MaskedEvaluator:
    """Scores genotypes as `ChildEvaluator` does, with sizes as masks (Keras on JAX only).

    A child costs as much as the biggest at its resolution, but nothing is compiled for it:
    the first of a resolution compiles for all. Numbers are those of `ChildEvaluator` but
    for rounding. Everything runs on JAX's default device.

    Args:
        supernet: the trained supernet; its weights are copied.
        calibration: training images that the statistics are estimated from.
        validation: held-out training images that the accuracy is measured on.
        split: what the validation images are called in reports.
        memory_limit_mb: of the activations of all calibration images; what exceeds it is
            computed again for every batch norm. The images, uint8, stay on the device.

    Raises:
        ValueError: on another backend than JAX, or without images.
    """

    def __init__(
        self,
        supernet: Supernet,
        calibration: Split,
        validation: Split,
        split: str = "held-out training",
        memory_limit_mb: float = MEMORY_LIMIT_MB,
    ):
        backend = keras.backend.backend()
        require(backend == "jax", "KERAS_BACKEND", "jax for a MaskedEvaluator", backend)
        for argument, images in (("calibration", calibration), ("validation", validation)):
            require(len(images) > 0, argument, "at least one image", len(images))
        self.supernet = supernet
        self.split = split
        self._weights = supernet.weight_arrays()
        # Children compute in the dtype of their weights.
        self._programs = masked_programs(supernet.space, supernet.variable_dtype)
        self._device_weights = {k: K.convert_to_tensor(v) for k, v in self._weights.items()}
        self._calibration = calibration
        self._validation = validation
        self._memory_limit_mb = memory_limit_mb
        self._donor: tuple[Genotype, dict[str, Moments]] | None = None

    def score(self, genotypes: Sequence[Genotype]) -> list[dict[str, float]]:
        """Accuracy (0..1), mean cross-entropy, MMACs and parameters (M) of each genotype."""
        return [
            evaluation.metrics_of(genotype.spec(), self.logits(genotype), self._validation.labels)
            for genotype in genotypes
        ]

    def finished_weights(self, genotype: Genotype) -> dict[str, np.ndarray]:
        """Weights of the child with its calibrated statistics, by `op/weight`."""
        ops = genotype.spec().ops()
        weights = slice_weights(self._weights, ops)
        child = self._calibration_of(genotype)
        child.run()
        statistics = child.statistics
        for op in ops:
            if isinstance(op, BatchNorm):
                for name, value in zip(("mean", "variance"), statistics[op.name], strict=True):
                    found = K.convert_to_numpy(value)[: op.channels]
                    weights[f"{op.name}/moving_{name}"] = np.array(found)
        return weights

    def logits(self, genotype: Genotype, donor: Genotype | None = None) -> np.ndarray:
        """As of `ChildEvaluator`."""
        child = self._calibration_of(genotype)
        if donor is None:
            child.run()
        else:
            if self._donor is None or self._donor[0] != donor:
                calibration = self._calibration_of(donor)
                calibration.run()
                self._donor = donor, calibration.statistics
            child.take(self._donor[1])
        weights, found = self._device_weights, []
        for images, _ in self._validation_chunks:
            images = self._programs.prepared(images, child.resolution)
            logits = self._programs.logits(weights, child.device_table, child.statistics, images)
            found.append(logits)
        logits = np.concatenate([K.convert_to_numpy(part) for part in found])
        return logits[: len(self._validation)]

    def _calibration_of(self, genotype: Genotype) -> _Calibration:
        space = self.supernet.space
        require(genotype in space, "genotype", f"of space '{space.name}'", genotype)
        return _Calibration(
            self._programs,
            self._programs.of_segments(self._device_weights),
            size_table(genotype),
            genotype["resolution"],
            self._calibration_chunks,
            self._memory_limit_mb,
        )

    @functools.cached_property
    def _calibration_chunks(self) -> list[Chunk]:
        return _chunks(self._calibration)

    @functools.cached_property
    def _validation_chunks(self) -> list[Chunk]:
        return _chunks(self._validation)
