"""Size tables: a genotype as numbers that one trace of the supernet can read."""

from __future__ import annotations

import numpy as np

from bignas_tf.ops import Op
from bignas_tf.spaces.genotype import Genotype, Space

IN_CHANNELS, CHANNELS, KERNEL_SIZE, PRESENT = range(4)


def size_table(genotype: Genotype) -> np.ndarray:
    """Active sizes of every op of the space's op list, int32 `(ops, 4)`.

    The columns are input channels, output channels, kernel size (1 where an op has none)
    and presence (0 or 1). Absent ops have the sizes of the same genotype at full depth
    with every op written out, so that they can run on zero rows.
    """
    space = genotype.space
    own = {op.name for op in genotype.spec().ops()}
    full = {op.name: op for op in space.all_ops_spec(genotype).ops()}
    return np.array([_row(full[op.name], op.name in own) for op in space.ops()], np.int32)


def _row(op: Op, present: bool) -> list[int]:
    return [op.in_channels, op.channels, getattr(op, "kernel_size", 1), int(present)]


def optional_blocks(space: Space) -> frozenset[str]:
    """Blocks that some genotype lacks: those that the shallowest network does not have."""
    always = {op.block for op in space.smallest().spec().ops()}
    return frozenset(op.block for op in space.ops() if op.block not in always)
