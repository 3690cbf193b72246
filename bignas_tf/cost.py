"""Analytic cost of a network: multiply-accumulates, parameters, live activation memory.

Counted from primitive ops at any resolution; nothing is built.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bignas_tf.checks import is_int, require
from bignas_tf.ops import INPUT, WEIGHTED, Op, Shape, last_uses, output_shape, weight_shapes
from bignas_tf.spec import NetworkSpec

FLOAT32_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a network or of one of its blocks, for one image.

    Attributes:
        macs: multiply-accumulates of convolutions (also grouped, dilated, depthwise, those of
            squeeze-and-excitation and of shortcuts) and dense layers. Batch norm,
            activations, pooling and biases are not counted.
        params: weights, biases and two per batch-norm channel (gamma and beta). A Keras model
            counts these as trainable and two moving statistics more as non-trainable.
        peak_activation_bytes: largest sum of live tensors, float32, while the ops run in
            order. An op's inputs and output are live while it runs, and so is every tensor
            that a later op reads, the image included.
    """

    macs: int
    params: int
    peak_activation_bytes: int

    @property
    def mmacs(self) -> float:
        """Multiply-accumulates in millions."""
        return self.macs / 1e6

    @property
    def params_m(self) -> float:
        """Parameters in millions."""
        return self.params / 1e6


class OpCost(NamedTuple):
    """Cost of one op, for one image.

    Attributes:
        name: of the op.
        block: that wrote it.
        macs: multiply-accumulates.
        params: weights, biases, gamma and beta.
        output_shape: `(height, width, channels)` or `(channels,)`.
        output_bytes: of the output, float32.
        live_bytes: of all tensors live while the op runs, float32.
    """

    name: str
    block: str
    macs: int
    params: int
    output_shape: Shape
    output_bytes: int
    live_bytes: int


@dataclasses.dataclass(frozen=True)
class Profile:
    """Cost of a network, op by op.

    Attributes:
        input_shape: `(height, width, channels)` that was counted.
        ops: in execution order.
        blocks: by name, in execution order; the peak is over the block's own ops.
        total: of the network.
    """

    input_shape: Shape
    ops: tuple[OpCost, ...]
    blocks: dict[str, Cost]
    total: Cost

    def table(self, columns: Mapping[str, Mapping[str, str]] | None = None) -> str:
        """One line per block: output shape, MMACs, parameters, peak of live KiB.

        Args:
            columns: more of them, by their heads: texts by block, `"input"` or `"total"`.
        """
        outputs = {op.block: op.output_shape for op in self.ops}
        rows: list[tuple[str, ...]] = [("block", "output", "MMACs", "params", "live KiB")]
        rows.append((INPUT, _times(self.input_shape), "", "", ""))
        rows += [_row(name, _times(outputs[name]), cost) for name, cost in self.blocks.items()]
        rows.append(_row("total", "", self.total))
        for head, texts in (columns or {}).items():
            rows = [(*rows[0], head), *((*row, texts.get(row[0], "")) for row in rows[1:])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def count(
    network: NetworkSpec | Sequence[Op],
    resolution: int | None = None,
    input_shape: Shape | None = None,
) -> Cost:
    """Counts a network.

    Args:
        network: a spec or ops in execution order.
        resolution: height and width of a square image in pixels instead of the spec's own;
            for a spec only.
        input_shape: `(height, width, channels)` instead of the spec's own; required for ops.

    Returns:
        The total `Cost`.

    Raises:
        ValueError: for an impossible image, or ops without `input_shape`.
    """
    ops, shape = _resolve(network, resolution, input_shape)
    macs = params = peak = 0
    for _, op_macs, op_params, _, _, live in _walk(ops, shape):
        macs += op_macs
        params += op_params
        peak = max(peak, live)
    return Cost(macs, params, peak)


def profile(
    network: NetworkSpec | Sequence[Op],
    resolution: int | None = None,
    input_shape: Shape | None = None,
) -> Profile:
    """Counts a network op by op.

    Args:
        network: a spec or ops in execution order.
        resolution: height and width of a square image in pixels instead of the spec's own;
            for a spec only.
        input_shape: `(height, width, channels)` instead of the spec's own; required for ops.

    Returns:
        The `Profile`.

    Raises:
        ValueError: for an impossible image, or ops without `input_shape`.
    """
    ops, shape = _resolve(network, resolution, input_shape)
    costs = tuple(
        OpCost(op.name, op.block, macs, params, output, size, live)
        for op, macs, params, output, size, live in _walk(ops, shape)
    )
    blocks: dict[str, list[OpCost]] = {}
    for op in costs:
        blocks.setdefault(op.block, []).append(op)
    totals = {name: _total(members) for name, members in blocks.items()}
    return Profile(shape, costs, totals, _total(costs))


def _walk(ops: Sequence[Op], input_shape: Shape) -> Iterator[tuple[Op, int, int, Shape, int, int]]:
    """Yields every op with its MACs, params, output shape, output bytes and live bytes."""
    shapes = {INPUT: input_shape}
    sizes = {INPUT: FLOAT32_BYTES * math.prod(input_shape)}
    last = last_uses(ops)
    live = sizes[INPUT]  # the first op can read nothing else
    for index, op in enumerate(ops):
        shape = output_shape(op, [shapes[name] for name in op.inputs])
        size = FLOAT32_BYTES * math.prod(shape)
        shapes[op.name], sizes[op.name] = shape, size
        live += size
        macs = params = 0
        if isinstance(op, WEIGHTED):
            weights = weight_shapes(op)
            params = sum(map(math.prod, weights.values()))
            if "kernel" in weights:  # each of its values is used once per output position
                macs = math.prod(weights["kernel"]) * math.prod(shape[:-1])
        yield op, macs, params, shape, size, live
        for name in (*op.inputs, op.name):
            if last.get(name) == index:
                live -= sizes[name]
                del last[name]  # an op may read a tensor twice


def _total(ops: Sequence[OpCost]) -> Cost:
    return Cost(
        macs=sum(op.macs for op in ops),
        params=sum(op.params for op in ops),
        peak_activation_bytes=max(op.live_bytes for op in ops),
    )


def _resolve(
    network: NetworkSpec | Sequence[Op], resolution: int | None, input_shape: Shape | None
) -> tuple[Sequence[Op], Shape]:
    """The ops and the image shape to count."""
    ops: Any = network  # of the declared types only once checked
    shape: Any = input_shape
    if isinstance(network, NetworkSpec):
        ops = network.ops()
        shape = network.input_shape if input_shape is None else input_shape
    ok = isinstance(ops, (list, tuple)) and len(ops) > 0
    require(ok, "network", "a NetworkSpec or a non-empty list of ops", network)
    ok = isinstance(shape, (tuple, list)) and len(shape) == 3 and all(map(is_int, shape))
    allowed = "three positive integers (height, width, channels)"
    require(ok, "input_shape", allowed, input_shape)
    if resolution is not None:
        allowed = "a positive integer, or None where `input_shape` is given"
        require(is_int(resolution) and input_shape is None, "resolution", allowed, resolution)
        shape = (resolution, resolution, shape[-1])
    return ops, tuple(shape)


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _row(name: str, output: str, cost: Cost) -> tuple[str, str, str, str, str]:
    live = f"{cost.peak_activation_bytes / 1024:.0f}"
    return name, output, f"{cost.mmacs:.3f}", f"{cost.params}", live
