"""The masked supernet as programs that XLA compiles once per resolution.

XLA compiles for one set of shapes. Masked, the supernet has those of the biggest child
whatever the genotype, which is only another size table. Batch norms cut its walk into
segments, because their statistics are pooled in float64 on the host.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops as K

from bignas_tf.calibration import group_size
from bignas_tf.layers.slicing import channel_mask
from bignas_tf.ops import INPUT, BatchNorm, weight_shapes
from bignas_tf.primitives import full_precision, normalize
from bignas_tf.resize import prepare
from bignas_tf.spaces import Space
from bignas_tf.spaces.sizes import CHANNELS
from bignas_tf.supernet import Supernet
from bignas_tf.table_walk import TableWalk, stand_ins

Moments = tuple[Any, Any]


def live_tensors(space: Space, index: int) -> frozenset[str]:
    """The tensors made before the op `index` of a space that it or a later op reads."""
    ops, sources = space.ops(), stand_ins(space)
    read = {name for op in ops[index:] for name in op.inputs}
    read |= {sources[op.name] for op in ops[index:] if op.name in sources}
    return frozenset(read & {INPUT, *(op.name for op in ops[:index])})


def group_moments(x: Any, images: Any) -> tuple[Any, Any, Any]:
    """Moments of groups of images, each small enough to be summed in float32.

    Args:
        x: `(chunk, height, width, channels)`.
        images: int32 scalar, how many of the chunk count; those after them are padding.

    Returns:
        Positions that count, int32 `(groups,)`; means and population variances, `(groups,
        channels)`, of no meaning where no position counts.
    """
    size, positions = group_size(x.shape), int(np.prod(x.shape[1:-1]))
    groups = -(-x.shape[0] // size)
    padding = groups * size - x.shape[0]
    x = K.reshape(x, (x.shape[0], positions, x.shape[-1]))
    x = K.pad(x, [[0, padding], [0, 0], [0, 0]]) if padding else x
    x = K.reshape(x, (groups, size, positions, x.shape[-1]))
    counted = K.reshape(K.arange(groups * size, dtype="int32") < images, (groups, size, 1, 1))
    real = K.clip(images - size * K.arange(groups, dtype="int32"), 0, size) * positions
    count = K.cast(K.maximum(real, 1), x.dtype)[:, None]
    mean = K.sum(K.where(counted, x, 0), axis=(1, 2)) / count
    squares = K.where(counted, K.square(x - mean[:, None, None]), 0)
    return real, mean, K.sum(squares, axis=(1, 2)) / count


class FinishedWalk(TableWalk):
    """A masked walk of a calibrated child: batch norms use given statistics.

    Args:
        supernet: whose weights it uses.
        table: size table of the child.
        statistics: mean and variance by name of the batch norm, as wide as the biggest
            child's.
    """

    def __init__(self, supernet: Supernet, table: Any, statistics: Mapping[str, Moments]):
        super().__init__(supernet, table, masked=True)
        self.statistics = statistics

    def batch_norm(self, index: int, op: BatchNorm, x: Any) -> Any:
        layer = self.supernet.op_layers[op.name]
        mask = channel_mask(op.channels, self.table[index, CHANNELS], x.dtype)
        gamma, beta = K.convert_to_tensor(layer.gamma), K.convert_to_tensor(layer.beta) * mask
        return normalize(x, *self.statistics[op.name], gamma, beta, op.epsilon)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` through `jax.jit`, in full precision."""
    import jax

    jitted = jax.jit(function)

    def run(*arguments: Any) -> Any:
        with full_precision():
            return jitted(*arguments)

    return run


class MaskedPrograms:
    """The masked supernet of a space, weights not included, in parts that are compiled once.

    Args:
        space: the search space.
        dtype: of weights and activations, such as "float32".

    Attributes:
        supernet: one whose own weights are never used.
        norms: positions of the batch norms among the space's ops.
        segments: one per batch norm, up to its input and from the one before it: (weights of
            the segment, table, statistics of the one before, live tensors of a chunk, images
            that count) -> (live tensors, moments of the input).
        logits: (all weights, table, statistics, prepared images) -> `(chunk, classes)`.
    """

    def __init__(self, space: Space, dtype: str):
        self.supernet = Supernet(space, dtype=dtype)
        self.ops = space.ops()
        self.norms = [i for i, op in enumerate(self.ops) if isinstance(op, BatchNorm)]
        self._spans = list(itertools.pairwise([0, *self.norms]))
        self._variables = self.supernet.variables_by_path()
        self.segments = [self._segment(start, stop) for start, stop in self._spans]
        self.logits = self._logits()

    def prepared(self, images: Any, resolution: int) -> Any:
        """uint8 images as a child takes them.

        Op by op: compiled as a whole their division would become a product, and images
        would differ by a rounding from those that other children see.
        """
        return K.cast(prepare(images, resolution), self.supernet.variable_dtype)

    def of_segments(self, weights: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The weights that each segment takes, of all those of a supernet by `op/weight`."""
        return [
            {
                f"{op.name}/{name}": weights[f"{op.name}/{name}"]
                for op in self.ops[start:stop]
                for name in weight_shapes(op)
            }
            for start, stop in self._spans
        ]

    def _segment(self, start: int, stop: int) -> Callable[..., Any]:
        live = sorted(live_tensors(self.supernet.space, stop))
        (source,) = self.ops[stop].inputs

        def run(weights, table, statistics, tensors, images):
            tensors = self._walk(start, stop, weights, table, statistics, tensors)
            return {name: tensors[name] for name in live}, group_moments(tensors[source], images)

        return compiled(run)

    def _logits(self) -> Callable[..., Any]:
        end = len(self.ops)

        def run(weights, table, statistics, images):
            tensors = self._walk(0, end, weights, table, statistics, {INPUT: images})
            return tensors[self.ops[-1].name]

        return compiled(run)

    def _walk(
        self,
        start: int,
        stop: int,
        weights: Mapping[str, Any],
        table: Any,
        statistics: Mapping[str, Moments],
        tensors: Mapping[str, Any],
    ) -> dict[str, Any]:
        given = [(self._variables[path], value) for path, value in weights.items()]
        walked = dict(tensors)
        with keras.StatelessScope(state_mapping=given):
            FinishedWalk(self.supernet, table, statistics).masked_ops(start, stop, walked)
        return walked


@functools.lru_cache(maxsize=2)
def masked_programs(space: Space, dtype: str) -> MaskedPrograms:
    """The programs of a space, the same for all its supernets: each evaluation of a run."""
    return MaskedPrograms(space, dtype)
