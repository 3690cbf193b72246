"""Re-estimation of batch-norm statistics after slicing.

Sequential and exact: every layer's mean and population variance are pooled in float64
over all images, with every earlier layer already in inference mode on its final
statistics, which is what the frozen network will see.

Reference:
    Yu et al., "BigNAS", ECCV 2020, section 3.3 (batch-norm calibration).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import keras
import numpy as np
from keras import ops as K

from bignas_tf import cost
from bignas_tf.checks import require, require_choice, require_int
from bignas_tf.ops import INPUT, BatchNorm, Op, last_uses
from bignas_tf.primitives import full_precision, moments
from bignas_tf.spec import NetworkSpec
from bignas_tf.stretch import Stretch, stretch

# Float64 `(n,)` of every worker that calibrates together, in their order: `(workers, n)`.
Gather = Callable[[np.ndarray], np.ndarray]
METHODS = ("sequential", "batch_average")
CHUNK = 256  # images that run at a time; the result does not depend on it
MEMORY_LIMIT_MB = 4096.0
# Positions that are summed in float32: fused kernels lose 1e-3 of a variance over 3e6 of them.
POSITIONS = 2**15


def group_size(shape: Sequence[int]) -> int:
    """How many images of `(batch, height, width, channels)` are summed in float32."""
    return max(1, POSITIONS // int(np.prod(shape[1:-1])))


class PooledMoments:
    """Mean and population variance over chunks, pooled in float64.

    Reference:
        Chan et al., "Updating formulae and a pairwise algorithm for computing sample
        variances", 1979.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0  # sum of squared differences from the mean

    def add(self, x: Any) -> None:
        """Adds a chunk, `(batch, height, width, channels)`."""
        step = group_size(x.shape)
        for start in range(0, x.shape[0], step):
            group = x[start : start + step]
            self.add_moments(int(np.prod(group.shape[:-1])), *moments(group))

    def add_moments(self, count: int, mean: Any, variance: Any) -> None:
        """Adds the mean and population variance, `(channels,)`, of `count` positions."""
        group_mean, group_variance = (
            K.convert_to_numpy(moment).astype(np.float64) for moment in (mean, variance)
        )
        total = self.count + count
        delta = group_mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = (
            self.squares + group_variance * count + delta**2 * (self.count * count / total)
        )
        self.count = total

    def of_all_workers(self, gather: Gather) -> PooledMoments:
        """The moments over what all workers pooled, the same on each of them."""
        own = np.concatenate([[self.count], self.mean, self.variance])
        pooled = PooledMoments()
        for row in gather(own):
            pooled.add_moments(int(row[0]), *np.split(row[1:], 2))
        return pooled

    @property
    def variance(self) -> np.ndarray:
        """Population variance per channel."""
        return self.squares / self.count


def calibrate(
    child: keras.Model,
    images: np.ndarray,
    *,
    spec: NetworkSpec | None = None,
    method: str = "sequential",
    chunk: int = CHUNK,
    memory_limit_mb: float = MEMORY_LIMIT_MB,
) -> dict[str, np.ndarray]:
    """Re-estimates the batch-norm statistics of a child and writes them into it.

    Args:
        child: from `extract` or `build_child`, or loaded from a file.
        images: `(images, resolution, resolution, channels)`, in the input range -1..1 at
            the child's resolution.
        spec: of the child; only one loaded from a file does not carry it.
        method: "sequential" (exact) or "batch_average" (batch statistics of every layer,
            averaged over chunks, as other implementations do; depends on `chunk`).
        chunk: images that run at a time.
        memory_limit_mb: above it, stored activations are recomputed from block inputs, and where
            those are too many as well, from earlier ones, in the end from the images.

    Returns:
        The statistics by `op/moving_mean` and `op/moving_variance`.

    Raises:
        ValueError: for images of another shape, no images, or an unknown method.
    """
    spec = spec or getattr(child, "spec", None)
    if spec is None:
        raise ValueError("`spec` must be given for a child that was loaded. Received: None")
    variables = {variable.path: variable for variable in child.variables}
    weights = {path: variable.value for path, variable in variables.items()}
    statistics = batch_norm_statistics(
        spec, weights, images, method=method, chunk=chunk, memory_limit_mb=memory_limit_mb
    )
    for path, value in statistics.items():
        variables[path].assign(value)
    return statistics


def batch_norm_statistics(
    spec: NetworkSpec,
    weights: Mapping[str, Any],
    images: np.ndarray,
    *,
    method: str = "sequential",
    chunk: int = CHUNK,
    memory_limit_mb: float = MEMORY_LIMIT_MB,
    gather: Gather | None = None,
) -> dict[str, np.ndarray]:
    """Statistics of every batch normalization of a network; see `calibrate`.

    With `gather`, sequential ones are those over the images of all workers.
    """
    require_choice("method", method, METHODS)
    require_int("chunk", chunk)
    shape = tuple(images.shape)
    wanted = f"(images, {', '.join(map(str, spec.input_shape))}) with at least one image"
    require(shape[1:] == spec.input_shape and shape[0] > 0, "images", wanted, shape)
    kind = keras.backend.standardize_dtype(images.dtype)
    require("float" in kind, "images", "floats in the input range -1..1", kind)
    ops = spec.ops()
    norms = [i for i, op in enumerate(ops) if isinstance(op, BatchNorm)]
    if not norms:
        return {}
    ops = ops[: norms[-1] + 1]
    dtype = keras.backend.standardize_dtype(next(iter(weights.values())).dtype)
    chunks = [
        K.convert_to_tensor(images[start : start + chunk], dtype)
        for start in range(0, len(images), chunk)
    ]
    needed_mb = cost.count(spec).peak_activation_bytes * len(images) / 1e6
    with full_precision():
        if method == "batch_average":
            return _batch_average(ops, weights, chunks)
        calibration = SequentialCalibration(weights, gather)
        if needed_mb <= memory_limit_mb:
            calibration.walk(ops, [{INPUT: chunk} for chunk in chunks])
        else:
            ends = [end for end, _ in held_blocks(spec, len(images), memory_limit_mb)]
            _recompute(calibration, ops, chunks, [*(e for e in ends if e < len(ops)), len(ops)])
    return calibration.statistics


def held_blocks(spec: NetworkSpec, images: int, memory_limit_mb: float) -> list[tuple[int, float]]:
    """After which blocks calibration holds what is to be read, where it cannot hold everything.

    Args:
        spec: the network.
        images: that it is calibrated on.
        memory_limit_mb: for what two such blocks hold, one after the other.

    Returns:
        For each of them, the last one excepted, how many ops come until its end, and MB that it
        holds of an image.
    """
    chains: list[list[tuple[int, float]]] = [[]]  # the longest to each block
    for number, (op, following) in enumerate(itertools.pairwise(cost.profile(spec).ops), 1):
        if op.block == following.block:
            continue
        held = (following.live_bytes - following.output_bytes) / 1e6
        room = memory_limit_mb / images - held
        fitting = [chain for chain in chains if sum(mb for _, mb in chain[-1:]) <= room]
        if fitting:
            chains.append([*max(fitting, key=len), (number, held)])
    return max(chains, key=len)


class SequentialCalibration:
    """Settles the batch norms of a network in their order.

    Args:
        weights: of the network or a part of it, by `op/weight`.
        gather: of workers that have images of their own; None for a single one.

    Attributes:
        weights: tensors; with the statistics found so far.
        statistics: found so far, by `op/moving_*`.
    """

    def __init__(self, weights: Mapping[str, Any], gather: Gather | None = None):
        self._gather = gather
        self.weights = {path: K.convert_to_tensor(value) for path, value in weights.items()}
        self.statistics: dict[str, np.ndarray] = {}

    def settle(self, op: BatchNorm, chunks: Iterator[Any]) -> None:
        """Fixes the statistics of `op` from its inputs."""
        pooled = PooledMoments()
        for x in chunks:
            pooled.add(x)
        if self._gather:
            pooled = pooled.of_all_workers(self._gather)
        for name, value in (("mean", pooled.mean), ("variance", pooled.variance)):
            path = f"{op.name}/moving_{name}"
            dtype = keras.backend.standardize_dtype(self.weights[f"{op.name}/gamma"].dtype)
            self.statistics[path] = value.astype(dtype)
            self.weights[path] = K.convert_to_tensor(value, dtype)

    def walk(
        self, ops: Sequence[Op], chunks: Sequence[Mapping[str, Any]], needed: Set[str] = frozenset()
    ) -> list[dict[str, Any]]:
        """Runs ops over all chunks at once, holding every live tensor of each.

        Args:
            ops: that follow each other.
            chunks: tensors by name that they read.
            needed: names of tensors that live on after them.

        Returns:
            What is needed, of every chunk.
        """
        tensors = list(chunks)
        for start, end in _parts(ops):
            first = ops[start]
            if isinstance(first, BatchNorm):
                self.settle(first, (chunk[first.inputs[0]] for chunk in tensors))
            live = {*needed, *(name for op in ops[end:] for name in op.inputs)}
            run = stretch(ops[start:end], self.weights, live)
            for index, chunk in enumerate(tensors):
                tensors[index] = run(chunk)  # in place: what nobody reads any more is freed
        return [dict(chunk) for chunk in tensors]


def _parts(ops: Sequence[Op]) -> list[tuple[int, int]]:
    """From where to where ops run in one go: a batch norm begins a part, and so does a block."""
    blocks = ["", *(op.block for op in ops)]
    starts = (
        index
        for index, op in enumerate(ops)
        if isinstance(op, BatchNorm) or op.block != blocks[index]
    )
    return list(itertools.pairwise(sorted({0, *starts, len(ops)})))


def _recompute(
    network: SequentialCalibration,
    network_ops: Sequence[Op],
    chunks: list[Any],
    ends: Sequence[int],
) -> None:
    """Holds what is read beyond each end and recomputes what lies between two of them."""
    last = last_uses(network_ops)
    held = [{INPUT: chunk} for chunk in chunks]
    for begin, end in itertools.pairwise([0, *ends]):
        ops = network_ops[begin:end]
        parts: list[Stretch] = []
        for start, stop in _parts(ops):
            first = ops[start]
            if isinstance(first, BatchNorm):
                inputs = (inner[first.inputs[0]] for inner in _replayed(held, parts))
                network.settle(first, inputs)
            live = {name for name, use in last.items() if use >= begin + stop}
            parts.append(stretch(ops[start:stop], network.weights, live))
        if end < len(network_ops):
            held = list(_replayed(held, parts))


def _replayed(
    chunks: Sequence[dict[str, Any]], parts: Sequence[Stretch]
) -> Iterator[dict[str, Any]]:
    """What is live after the parts, chunk after chunk."""
    for inner in chunks:
        for run in parts:
            inner = run(inner)
        yield inner


def _batch_average(
    ops: Sequence[Op], weights: Mapping[str, Any], chunks: list[Any]
) -> dict[str, np.ndarray]:
    """Mean over chunks of the statistics of every layer, all layers in training mode.

    A network in training mode normalizes each chunk by statistics that are exact for that chunk.
    """
    sums: dict[str, np.ndarray] = {}
    for chunk in chunks:
        calibration = SequentialCalibration(weights)
        calibration.walk(ops, [{INPUT: chunk}])
        for path, found in calibration.statistics.items():
            sums[path] = sums.get(path, 0.0) + found.astype(np.float64)
    dtype = keras.backend.standardize_dtype(chunks[0].dtype)
    return {path: (total / len(chunks)).astype(dtype) for path, total in sums.items()}
