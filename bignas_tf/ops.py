"""Primitive operations: the one form in which a finished network is read.

A network is a list of ops in execution order. Every op names its output (its own
`name`) and its inputs (names of earlier ops, or `"input"`). Counting, building,
calibrating, exporting and the supernet all walk such lists; none knows of blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeVar

from bignas_tf.checks import is_int, require, require_choice

INPUT = "input"
ACTIVATIONS = ("linear", "relu", "relu6", "swish", "hard_swish", "sigmoid", "hard_sigmoid")
# Activations with f(0) != 0: on channels that a child does not have they yield a nonzero.
NONZERO_AT_ZERO = ("sigmoid", "hard_sigmoid")

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One primitive operation with one output.

    Attributes:
        name: unique in its network; also the name of its output and of its layer.
        inputs: names of the ops (or `"input"`) that it reads.
        in_channels: channels of the first input; of all inputs together for `Concat`.
        channels: channels of the output.
        block: name of the block that wrote it.
    """

    name: str
    inputs: tuple[str, ...]
    in_channels: int
    channels: int
    block: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv(Op):
    """Convolution, padding "same", kernel `(k, k, in_channels / groups, channels)`."""

    kernel_size: int
    strides: int = 1
    groups: int = 1
    dilation: int = 1
    use_bias: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthwiseConv(Op):
    """Depthwise convolution without bias, padding "same", kernel `(k, k, channels, 1)`."""

    kernel_size: int
    strides: int = 1
    dilation: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm(Op):
    """Batch normalization; `zero_gamma` marks the last one of a residual branch."""

    epsilon: float = 1e-3
    zero_gamma: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation(Op):
    """Elementwise activation, one of `ACTIVATIONS`.

    `gate` marks the input of a `Multiply` whose other factor is zero wherever a child
    has no channel, so that the gate's own value there does not matter.
    """

    function: str
    gate: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool(Op):
    """Pooling, padding "same", padding not counted; `kind` is "average" or "max"."""

    kind: str
    pool_size: int
    strides: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlobalPool(Op):
    """Average over height and width, to `(1, 1, channels)` or, flat, `(channels,)`."""

    keepdims: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropout(Op):
    """Dropout; the identity outside training."""

    rate: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dense(Op):
    """Dense layer on flat features, kernel `(in_channels, channels)`."""

    use_bias: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Add(Op):
    """Sum of tensors of one shape."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subtract(Op):
    """First input minus second."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multiply(Op):
    """Product; a `(1, 1, channels)` factor is broadcast over height and width."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concat(Op):
    """Concatenation along channels."""


WEIGHTED = (Conv, DepthwiseConv, BatchNorm, Dense)
AnyOp = TypeVar("AnyOp", bound=Op)


def weight_shapes(op: Op) -> dict[str, Shape]:
    """Trainable weights of `op` by name, with their shapes."""
    if isinstance(op, Conv):
        kernel = (op.kernel_size, op.kernel_size, op.in_channels // op.groups, op.channels)
        return {"kernel": kernel} | ({"bias": (op.channels,)} if op.use_bias else {})
    if isinstance(op, DepthwiseConv):
        return {"kernel": (op.kernel_size, op.kernel_size, op.channels, 1)}
    if isinstance(op, BatchNorm):
        return {"gamma": (op.channels,), "beta": (op.channels,)}
    if isinstance(op, Dense):
        shapes: dict[str, Shape] = {"kernel": (op.in_channels, op.channels)}
        return shapes | ({"bias": (op.channels,)} if op.use_bias else {})
    return {}


def output_shape(op: Op, inputs: Sequence[Shape]) -> Shape:
    """Shape of the output of `op`, without batch: `(height, width, channels)` or flat."""
    first = inputs[0]
    if isinstance(op, Dense):
        return (op.channels,)
    if isinstance(op, GlobalPool):
        return (1, 1, op.channels) if op.keepdims else (op.channels,)
    if isinstance(op, (Conv, DepthwiseConv, Pool)):
        height, width, _ = first
        return (-(-height // op.strides), -(-width // op.strides), op.channels)
    if isinstance(op, Multiply):
        return max(inputs)
    return (*first[:-1], op.channels)


def shapes(ops: Iterable[Op], input_shape: Shape) -> dict[str, Shape]:
    """Shapes of all tensors by name, `"input"` included.

    Args:
        ops: in execution order.
        input_shape: `(height, width, channels)`.
    """
    found = {INPUT: tuple(input_shape)}
    for op in ops:
        found[op.name] = output_shape(op, [found[name] for name in op.inputs])
    return found


def last_uses(ops: Sequence[Op]) -> dict[str, int]:
    """For every tensor the index of the last op that reads it.

    The network's output is never released: its index is `len(ops)`.
    """
    last = {name: index for index, op in enumerate(ops) for name in op.inputs}
    for index, op in enumerate(ops):
        last.setdefault(op.name, index)
    last[ops[-1].name] = len(ops)
    return last


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Handle of a tensor while a network is written out.

    Attributes:
        name: of the op that makes it, or `"input"`.
        channels: its channels.
        stride: image pixels per position along height and width; 0 for a single position,
            after global pooling. Rounded-up divisions compose, so equal strides mean equal
            sizes at every resolution.
        flat: whether its shape is `(channels,)`.
    """

    name: str
    channels: int
    stride: int = 1
    flat: bool = False


class OpWriter:
    """Collects the ops of one network; blocks write through it.

    Names are prefixed with the current block's: in block `stage1_block1`, `conv("a", ...)`
    writes the op `stage1_block1_a`. Its methods raise a `ValueError` where an op does not
    fit its inputs.

    Attributes:
        ops: written so far.
        classes: outputs of the classifier.
        epsilon: of all batch normalizations.
        block: name of the block that writes now.
        part: block recorded in the ops; a head writes its classifier as part `"top"`.
    """

    def __init__(self, classes: int, epsilon: float = 1e-3):
        self.ops: list[Op] = []
        self.classes = classes
        self.epsilon = epsilon
        self.block = ""
        self.part = ""
        self._names = {INPUT}

    def start(self, block: str) -> None:
        """Begins a block."""
        self.block = self.part = block

    def _write(self, op_type: type[AnyOp], name: str, inputs: Sequence[Tensor], **fields) -> Tensor:
        name = f"{self.block}_{name}" if self.block else name
        if name in self._names:
            raise ValueError(f"Op names must be unique in a network. Received: '{name}' twice")
        self._names.add(name)
        first = inputs[0]
        fields.setdefault("in_channels", first.channels)
        fields.setdefault("channels", first.channels)
        names = tuple(tensor.name for tensor in inputs)
        self.ops.append(op_type(name=name, inputs=names, block=self.part, **fields))
        stride = first.stride * fields.get("strides", 1)
        return Tensor(name, fields["channels"], stride, first.flat)

    def _map(self, name: str, x: Tensor) -> list[Tensor]:
        """Requires a feature map."""
        require(not x.flat, f"input of {self.block}_{name}", "(height, width, channels)", x)
        return [x]

    def _alike(self, name: str, inputs: Sequence[Tensor], channels: bool = True) -> None:
        """Requires tensors of one size."""
        sizes = {(t.stride, t.flat, t.channels if channels else 0) for t in inputs}
        require(len(sizes) == 1, f"inputs of {self.block}_{name}", "tensors of one size", inputs)

    def conv(
        self, name: str, x: Tensor, channels: int, kernel_size: int, groups: int = 1, **fields
    ) -> Tensor:
        """Writes a `Conv`."""
        ok = is_int(groups) and x.channels % groups == channels % groups == 0
        require(ok, "groups", f"a divisor of {x.channels} and {channels}", groups)
        fields |= {"channels": channels, "kernel_size": kernel_size, "groups": groups}
        return self._write(Conv, name, self._map(name, x), **fields)

    def depthwise(self, name: str, x: Tensor, kernel_size: int, **fields) -> Tensor:
        """Writes a `DepthwiseConv`."""
        return self._write(
            DepthwiseConv, name, self._map(name, x), kernel_size=kernel_size, **fields
        )

    def batch_norm(self, name: str, x: Tensor, zero_gamma: bool = False) -> Tensor:
        """Writes a `BatchNorm`."""
        return self._write(BatchNorm, name, [x], epsilon=self.epsilon, zero_gamma=zero_gamma)

    def activation(self, name: str, x: Tensor, function: str, gate: bool = False) -> Tensor:
        """Writes an `Activation`; "linear" writes nothing."""
        require_choice("function", function, ACTIVATIONS)
        if function == "linear":
            return x
        return self._write(Activation, name, [x], function=function, gate=gate)

    def pool(self, name: str, x: Tensor, kind: str, pool_size: int, strides: int) -> Tensor:
        """Writes a `Pool`."""
        require_choice("kind", kind, ("average", "max"))
        fields = {"kind": kind, "pool_size": pool_size, "strides": strides}
        return self._write(Pool, name, self._map(name, x), **fields)

    def global_pool(self, name: str, x: Tensor, keepdims: bool = False) -> Tensor:
        """Writes a `GlobalPool`."""
        y = self._write(GlobalPool, name, self._map(name, x), keepdims=keepdims)
        return dataclasses.replace(y, stride=0, flat=not keepdims)

    def dropout(self, name: str, x: Tensor, rate: float) -> Tensor:
        """Writes a `Dropout`; rate 0 writes nothing."""
        return self._write(Dropout, name, [x], rate=rate) if rate else x

    def dense(self, name: str, x: Tensor, channels: int, use_bias: bool = True) -> Tensor:
        """Writes a `Dense`."""
        require(x.flat, f"input of {self.block}_{name}", "flat", x)
        return self._write(Dense, name, [x], channels=channels, use_bias=use_bias)

    def add(self, name: str, *inputs: Tensor) -> Tensor:
        """Writes an `Add`."""
        self._alike(name, inputs)
        return self._write(Add, name, inputs)

    def subtract(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """Writes a `Subtract`."""
        self._alike(name, [a, b])
        return self._write(Subtract, name, [a, b])

    def multiply(self, name: str, x: Tensor, gate: Tensor) -> Tensor:
        """Writes a `Multiply`; `gate` may have a single position."""
        full = dataclasses.replace(gate, stride=gate.stride or x.stride)
        self._alike(name, [x, full])
        return self._write(Multiply, name, [x, gate])

    def concat(self, name: str, *inputs: Tensor) -> Tensor:
        """Writes a `Concat`."""
        self._alike(name, inputs, channels=False)
        total = sum(tensor.channels for tensor in inputs)
        return self._write(Concat, name, inputs, channels=total, in_channels=total)
