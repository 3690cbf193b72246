"""`NetworkSpec`: a finished network as data, written out as primitive ops on demand."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from bignas_tf.blocks import Block
from bignas_tf.checks import from_json, is_int, require, require_choice, require_int
from bignas_tf.ops import INPUT, Op, OpWriter, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """A finished network as data.

    Args:
        input_shape: `(height, width, channels)`.
        blocks: in execution order; the last one's output is the network's.
        classes: outputs of the classifier.
        batch_norm_epsilon: of all batch normalizations.

    Raises:
        ValueError: for impossible values, by name.
    """

    input_shape: Shape
    blocks: tuple[Block, ...]
    classes: int
    batch_norm_epsilon: float = 1e-3

    def __post_init__(self):
        shape = self.input_shape
        ok = isinstance(shape, tuple) and len(shape) == 3 and all(is_int(n) for n in shape)
        require(ok, "input_shape", "three positive integers (height, width, channels)", shape)
        require_int("classes", self.classes)
        epsilon = self.batch_norm_epsilon
        require(
            isinstance(epsilon, float) and epsilon > 0, "batch_norm_epsilon", "positive", epsilon
        )
        require(len(self.blocks) > 0, "blocks", "a non-empty list", self.blocks)
        self.ops()  # refuses unknown inputs, repeated names and indivisible groups

    def ops(self) -> tuple[Op, ...]:
        """The network as primitive ops in execution order."""
        return self._ops

    @functools.cached_property
    def _ops(self) -> tuple[Op, ...]:
        writer = OpWriter(self.classes, self.batch_norm_epsilon)
        outputs = {INPUT: Tensor(INPUT, self.input_shape[-1])}
        previous = INPUT
        for block in self.blocks:
            require(block.name not in outputs, "name", "unique among blocks", block.name)
            names = block.inputs or (previous,)
            for name in names:
                require_choice(f"inputs of block '{block.name}'", name, tuple(outputs))
            writer.start(block.name)
            outputs[block.name] = block.ops(writer, *(outputs[name] for name in names))
            previous = block.name
        _check_groups(writer.ops)
        return tuple(writer.ops)

    def with_input_shape(self, input_shape: Shape) -> NetworkSpec:
        """The same network for images of another shape."""
        return dataclasses.replace(self, input_shape=tuple(input_shape))

    def with_classes(self, classes: int) -> NetworkSpec:
        """The same network for another number of classes."""
        return dataclasses.replace(self, classes=classes)

    def to_json(self) -> dict[str, Any]:
        """The network as a JSON object."""
        return {
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "batch_norm_epsilon": self.batch_norm_epsilon,
            "blocks": [block.to_json() for block in self.blocks],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> NetworkSpec:
        """Builds a network from a JSON object or its text.

        Raises:
            ValueError: for unknown or missing keys and impossible values, by name.
        """
        fields = json.loads(data) if isinstance(data, str) else data
        if isinstance(fields, Mapping) and isinstance(fields.get("blocks"), (list, tuple)):
            fields = {**fields, "blocks": [Block.from_json(block) for block in fields["blocks"]]}
        return from_json(cls, fields, "A network")


def _check_groups(ops: list[Op]) -> None:
    for op in ops:
        groups = getattr(op, "groups", 1)
        require(op.in_channels % groups == 0, "groups", f"a divisor of {op.in_channels}", groups)
