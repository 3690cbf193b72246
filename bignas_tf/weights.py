"""Weights by name: what each is for, and a smaller network's within those of a bigger one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bignas_tf.layers.slicing import centre, first
from bignas_tf.ops import BatchNorm, Dense, Op, weight_shapes


@dataclasses.dataclass(frozen=True)
class WeightRole:
    """What a weight of the supernet is for.

    Attributes:
        op: name of its op.
        block: name of its block.
        weight: its own name, "kernel", "bias", "gamma" or "beta".
        role: the same, but "last_gamma" for the scale that ends a residual branch and
            "head" for everything of the classifier.
    """

    op: str
    block: str
    weight: str
    role: str

    @property
    def path(self) -> str:
        """`op/weight`, the variable's path in a child."""
        return f"{self.op}/{self.weight}"


def weight_roles(ops: tuple[Op, ...]) -> dict[str, WeightRole]:
    """The role of every weight of a network by `op/weight`, in the order of its ops."""
    found = {}
    for op in ops:
        for weight in weight_shapes(op):
            role = weight
            if isinstance(op, Dense):
                role = "head"
            elif isinstance(op, BatchNorm) and op.zero_gamma and weight == "gamma":
                role = "last_gamma"
            entry = WeightRole(op.name, op.block, weight, role)
            found[entry.path] = entry
    return found


def slice_weights(weights: Mapping[str, np.ndarray], ops: tuple[Op, ...]) -> dict[str, np.ndarray]:
    """Cuts the weights of a smaller network out of those of a bigger one.

    Args:
        weights: arrays by `op/weight`, of the supernet or of any child that contains the
            wanted one.
        ops: of the wanted network.

    Returns:
        Copies by `op/weight`, shaped as `ops` say.
    """
    sliced = {}
    for op in ops:
        for name, shape in weight_shapes(op).items():
            array = weights[f"{op.name}/{name}"]
            if len(shape) == 4:
                array = centre(array, shape[0], array.shape[0])
            for axis in range(2 if len(shape) == 4 else 0, len(shape)):
                array = first(array, axis, shape[axis])
            sliced[f"{op.name}/{name}"] = np.array(array)
    return sliced
