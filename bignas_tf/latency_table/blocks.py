"""The blocks of networks, each a network of its own that can be measured alone."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

from bignas_tf.blocks import Block
from bignas_tf.checks import require
from bignas_tf.ops import INPUT, Dropout, Op, Shape, shapes
from bignas_tf.spaces import Genotype, Space
from bignas_tf.spec import NetworkSpec

NAME = "block"
BASES = 6  # random genotypes, beside the smallest and the biggest

# Of an op, what its time cannot depend on: names, and what only training sees.
_SILENT = ("name", "inputs", "block", "zero_gamma", "epsilon", "gate")


@dataclasses.dataclass(frozen=True)
class SingleBlock:
    """A block as a network of its own.

    Attributes:
        spec: the network, its one block named `NAME`.
        key: hexadecimal digest of the input's shape and the ops: blocks of one key take the
            same time.
        output_shape: `(height, width, channels)` or `(channels,)`.
    """

    spec: NetworkSpec
    key: str
    output_shape: Shape

    @property
    def label(self) -> str:
        """Such as `mbconv 14x14x88 to 14x14x120, kernel 5, stride 1`."""
        (block,) = self.spec.blocks
        sizes = [
            f"{word} {getattr(block, name)}"
            for word, name in (("kernel", "kernel_size"), ("stride", "strides"))
            if hasattr(block, name)
        ]
        ends = f"{_times(self.spec.input_shape)} to {_times(self.output_shape)}"
        return ", ".join([f"{block.type} {ends}", *sizes])


def blocks_of(spec: NetworkSpec) -> dict[str, SingleBlock]:
    """The blocks of a network by their names in it, in execution order.

    Raises:
        ValueError: for a block of several inputs, or one that reads a flat tensor: it is no
            network of one image.
    """
    found: dict[str, SingleBlock] = {}
    outputs = {INPUT: spec.input_shape}
    previous = INPUT
    for block in spec.blocks:
        names = block.inputs or (previous,)
        shape = outputs[names[0]]
        ok = len(names) == 1 and len(shape) == 3
        allowed = "a network whose blocks have one input of (height, width, channels) each"
        require(ok, "spec", allowed, block.name)
        single = _single(block, shape, spec.classes)
        found[block.name], outputs[block.name] = single, single.output_shape
        previous = block.name
    return found


def space_blocks(space: Space, resolutions: Sequence[int] | None = None) -> dict[str, SingleBlock]:
    """Every different block of any network of a space, by key, in the order of the networks.

    Networks are far too many to be looked at. Each block depends on few genes, those of its
    stage and of the one before. Which they are shows in what changes with each single gene,
    at the smallest genotype, the biggest and a few random ones; all choices of these genes
    together then give all that the block can be.

    Args:
        space: of the networks.
        resolutions: of the images, in pixels; None for all of the space.

    Raises:
        ValueError: for a resolution that the space does not have, or blocks that are no
            networks.
    """
    wanted = tuple(space.resolutions if resolutions is None else resolutions)
    ok = len(wanted) > 0 and set(wanted) <= set(space.resolutions)
    require(ok, "resolutions", f"among {space.resolutions}", resolutions)
    genes, bases = _influences(space)
    found: dict[str, SingleBlock] = {}
    for name in bases:  # in the order of the networks
        names = [gene.name for gene in space.genes if gene.name in genes[name]]
        choices = [space.genes[space.index[gene]].choices for gene in names]
        for values in itertools.product(*choices):
            spec = bases[name].replace(**dict(zip(names, values, strict=True))).spec()
            if spec.input_shape[0] in wanted:
                single = blocks_of(spec)[name]
                found.setdefault(single.key, single)
    return found


def _influences(space: Space) -> tuple[dict[str, set[str]], dict[str, Genotype]]:
    """For every block the genes that it depends on, and a genotype that has it."""
    genes: dict[str, set[str]] = {}
    bases: dict[str, Genotype] = {}
    for base in (space.biggest(), space.smallest(), *space.sample(BASES, seed=0)):
        own = blocks_of(base.spec())
        for name in own:
            bases.setdefault(name, base)
            genes.setdefault(name, set())
        for other in space.neighbours(base):
            changed = next(
                gene.name
                for gene, a, b in zip(space.genes, base.values, other.values, strict=True)
                if a != b
            )
            for name, single in blocks_of(other.spec()).items():
                if name in own and own[name].key != single.key:
                    genes[name].add(changed)
    return genes, bases


@functools.lru_cache(maxsize=2**16)
def _single(block: Block, input_shape: Shape, classes: int) -> SingleBlock:
    alone = dataclasses.replace(block, name=NAME, inputs=())
    spec = NetworkSpec(input_shape, (alone,), classes)
    if spec.ops() == spec.with_classes(classes + 1).ops():
        spec = spec.with_classes(1)  # of a block that is no head, which serves any number
    content = json.dumps([input_shape, _described(spec.ops())])
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    ops = spec.ops()
    return SingleBlock(spec, key, shapes(ops, input_shape)[ops[-1].name])


def _described(ops: Sequence[Op]) -> list[list[Any]]:
    """The ops without their names: inputs are numbers of ops, dropout is not there."""
    numbers = {INPUT: 0}
    rows: list[list[Any]] = []
    for op in ops:
        inputs = [numbers[name] for name in op.inputs]
        if isinstance(op, Dropout):
            numbers[op.name] = inputs[0]
            continue
        fields = {
            field.name: getattr(op, field.name)
            for field in dataclasses.fields(op)
            if field.name not in _SILENT
        }
        rows.append([type(op).__name__, inputs, fields])
        numbers[op.name] = len(rows)
    return rows


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))
