"""Walking a space's ops with a size table: sliced by tensors, or masked."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

from keras import ops as K

from bignas_tf.layers.slicing import channel_mask
from bignas_tf.ops import (
    NONZERO_AT_ZERO,
    WEIGHTED,
    Activation,
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dropout,
    Op,
)
from bignas_tf.primitives import apply_weightless, replicas
from bignas_tf.spaces import Space
from bignas_tf.spaces.sizes import CHANNELS, KERNEL_SIZE, PRESENT, optional_blocks

if TYPE_CHECKING:
    from bignas_tf.supernet import Supernet


def drop(x: Any, mask: Any) -> Any:
    """Applies a dropout mask of the biggest child's width to the channels of `x`."""
    if mask is None:
        return x
    return x * K.cast(mask, x.dtype)[:, : K.shape(x)[-1]]


@functools.lru_cache(maxsize=32)
def stand_ins(space: Space) -> dict[str, str]:
    """What the last op of every block that may be absent returns then: the block's input."""
    optional = optional_blocks(space)
    found = {}
    for block, group in itertools.groupby(space.ops(), key=lambda op: op.block):
        if block in optional:
            ops = list(group)
            own = {op.name for op in ops}
            (source,) = {name for op in ops for name in op.inputs if name not in own}
            found[ops[-1].name] = source
    return found


class TableWalk:
    """One walk over the space's ops with a size table, slicing or masking."""

    def __init__(self, supernet: Supernet, table: Any, masked: bool):
        self.supernet = supernet
        self.table = table
        self.masked = masked
        self._stand_ins = stand_ins(supernet.space)

    def block(
        self, ops: list[tuple[int, Op]], tensors: dict[str, Any], dropout_mask: Any = None
    ) -> None:
        """Runs the ops of a block, adding their outputs to `tensors`."""
        for index, op in ops:
            inputs = [tensors[name] for name in op.inputs]
            if isinstance(op, Dropout):
                tensors[op.name] = drop(inputs[0], dropout_mask)
            elif op.name in self.supernet.space.optional_ops:
                tensors[op.name] = self._optional_op(index, op, inputs[0])
            else:
                tensors[op.name] = self._op(index, op, inputs)

    def optional_block(self, ops: list[tuple[int, Op]], tensors: dict[str, Any]) -> None:
        """Runs a block that returns its input where it is absent."""
        index, last = ops[-1]
        if self.masked:
            self.block(ops, tensors)
            self._stand_in(index, last, tensors)
            return
        import tensorflow as tf

        source = self._stand_ins[last.name]
        x = tensors[source]
        present = self.table[index, PRESENT] > 0

        def run(x: Any) -> Any:
            inner = {source: x}
            self.block(ops, inner)
            return inner[last.name]

        if self.supernet.synchronized and replicas() > 1:
            # No collectives in a branch: an absent block runs on one row, for nothing. On none
            # TensorFlow's convolutions give wrong shapes and gradients.
            y = run(x[: tf.where(present, tf.shape(x)[0], 1)])
            tensors[last.name] = tf.cond(present, lambda: y, lambda: tf.identity(x))
            return
        tensors[last.name] = tf.cond(present, lambda: run(x), lambda: tf.identity(x))

    def masked_ops(self, start: int, stop: int, tensors: dict[str, Any]) -> None:
        """Runs the ops `start` to `stop` of the space, adding their outputs to `tensors`.

        Masks need no block to be whole, so that a walk may pause between any two ops.
        """
        for index in range(start, stop):
            op = self.supernet.space.ops()[index]
            self.block([(index, op)], tensors)
            if op.name in self._stand_ins:
                self._stand_in(index, op, tensors)

    def _stand_in(self, index: int, last: Op, tensors: dict[str, Any]) -> None:
        source = tensors[self._stand_ins[last.name]]
        present = self.table[index, PRESENT] > 0
        tensors[last.name] = K.where(present, tensors[last.name], source)

    def _optional_op(self, index: int, op: Op, x: Any) -> Any:
        present = self.table[index, PRESENT] > 0
        if not self.masked:
            import tensorflow as tf

            return tf.cond(present, lambda: self._op(index, op, [x]), lambda: tf.identity(x))
        extra = op.channels - x.shape[-1]
        same = x[..., : op.channels]
        if extra > 0:
            same = K.pad(x, [[0, 0], [0, 0], [0, 0], [0, extra]])
        return K.where(present, self._op(index, op, [x]), same)

    def _op(self, index: int, op: Op, inputs: list[Any]) -> Any:
        row = self.table[index]
        x = inputs[0]
        if isinstance(op, BatchNorm):
            return self.batch_norm(index, op, x)
        if isinstance(op, WEIGHTED):
            layer = self.supernet.op_layers[op.name]
            arguments: dict[str, Any] = {"masked": self.masked}
            # The classes are not elastic, and losses want their number when they trace.
            if not isinstance(op, DepthwiseConv) and op is not self.supernet.space.ops()[-1]:
                arguments["channels"] = row[CHANNELS]
            if isinstance(op, (Conv, DepthwiseConv)) and op.kernel_size > 1:
                arguments["kernel_size"] = row[KERNEL_SIZE]
            return layer(x, **arguments)
        y = apply_weightless(op, *inputs)
        if self.masked and isinstance(op, Activation) and not op.gate:
            if op.function in NONZERO_AT_ZERO:
                y = y * channel_mask(op.channels, row[CHANNELS], y.dtype)
        return y

    def batch_norm(self, index: int, op: BatchNorm, x: Any) -> Any:
        """Normalizes by the statistics of the batch."""
        layer = self.supernet.op_layers[op.name]
        return layer(x, channels=self.table[index, CHANNELS], masked=self.masked)
