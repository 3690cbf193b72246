"""`NetworkSpec`: a finished network as data, written out as primitive ops on demand."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

from bignas_tf.blocks import Block
from bignas_tf.checks import from_json, is_int, is_number, require, require_choice, require_int
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
        positive = is_number(epsilon) and epsilon > 0
        require(positive, "batch_norm_epsilon", "a positive number", epsilon)
        blocks = self.blocks
        ok = isinstance(blocks, tuple) and all(isinstance(b, Block) for b in blocks)
        require(ok and len(blocks) > 0, "blocks", "a non-empty tuple of Block", blocks)
        self.ops()  # refuses unknown inputs, repeated names and ops that do not fit their inputs

    def ops(self) -> tuple[Op, ...]:
        """The network as primitive ops in execution order."""
        return self._ops

    @functools.cached_property
    def _ops(self) -> tuple[Op, ...]:
        ops: list[Op] = []
        outputs = {INPUT: Tensor(INPUT, self.input_shape[-1])}
        previous = INPUT
        for block in self.blocks:
            require(block.name not in outputs, "name", "unique among blocks", block.name)
            names = block.inputs or (previous,)
            for name in names:
                require_choice(f"inputs of block '{block.name}'", name, tuple(outputs))
            inputs = tuple(outputs[name] for name in names)
            written, outputs[block.name] = _lower(
                block, inputs, self.classes, self.batch_norm_epsilon
            )
            ops += written
            previous = block.name
        _check_names(ops, outputs[previous])
        return tuple(ops)

    def with_input_shape(self, input_shape: Shape) -> NetworkSpec:
        """The same network for images of another shape."""
        return dataclasses.replace(self, input_shape=input_shape)

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
        fields = _parse(data) if isinstance(data, str) else data
        if isinstance(fields, Mapping) and isinstance(fields.get("blocks"), (list, tuple)):
            fields = {**fields, "blocks": [Block.from_json(block) for block in fields["blocks"]]}
        return from_json(cls, fields, "A network")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        shown = text if len(text) <= 80 else f"{text[:80]}..."
        raise ValueError(f"A network must be JSON text ({error}). Received: {shown!r}") from error


@functools.lru_cache(maxsize=4096)
def _lower(
    block: Block, inputs: tuple[Tensor, ...], classes: int, epsilon: float
) -> tuple[tuple[Op, ...], Tensor]:
    """The ops of one block and its output.

    Cached: the genotypes of a space share their blocks, and a search lowers very many.
    """
    arity = block.arity
    require(
        arity is None or len(inputs) == arity,
        f"inputs of block '{block.name}'", f"{arity} in number", [t.name for t in inputs],
    )  # fmt: skip
    writer = OpWriter(classes, epsilon)
    writer.start(block.name)
    output = block.ops(writer, *inputs)
    return tuple(writer.ops), output


def _check_names(ops: list[Op], output: Tensor) -> None:
    names = [op.name for op in ops]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"Op names must be unique in a network. Received: '{twice}' twice")
    require(
        bool(names) and output.name == names[-1],
        "blocks", "such that the last op written is the network's output", output.name,
    )  # fmt: skip
