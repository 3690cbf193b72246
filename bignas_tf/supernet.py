"""The supernet: one elastic layer per op of a space, walked by the ops of any child.

Topology is written once, in the blocks. Static mode walks a genotype's own ops with
Python ints; sliced and masked mode walk the space's with the genotype's size table.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops as K

from bignas_tf.checks import require, require_choice
from bignas_tf.layers.factory import elastic_layer
from bignas_tf.ops import (
    INPUT,
    WEIGHTED,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Op,
)
from bignas_tf.primitives import apply_weightless
from bignas_tf.spaces import Genotype, Space, space_from_config
from bignas_tf.spaces.sizes import PRESENT, optional_blocks, size_table
from bignas_tf.table_walk import TableWalk, drop
from bignas_tf.weights import WeightRole, slice_weights, weight_roles

MODES = ("static", "sliced", "masked")


@keras.saving.register_keras_serializable(package="bignas_tf")
class Supernet(keras.Model):
    """All children of a space in one set of weights.

    It has no moving statistics: batch normalization always uses the batch's, and only
    extracted, calibrated children run in inference mode.

    Args:
        space: the search space.
        seed: of the initial weights; each depends on it and on its op's name alone.
        zero_gamma: whether the last scale of every residual branch starts at 0.
        synchronized: whether under tf.distribute batch statistics are those of the global batch.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, sections 3.1 and 3.2.
    """

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        zero_gamma: bool = True,
        synchronized: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.space = space
        self.seed = seed
        self.zero_gamma = zero_gamma
        self.synchronized = synchronized
        self.op_layers = {
            op.name: elastic_layer(op, seed, zero_gamma, synchronized, self.dtype_policy)
            for op in space.ops()
            if isinstance(op, WEIGHTED)
        }
        self._optional_blocks = optional_blocks(space)
        for layer in self.op_layers.values():
            layer.build()
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Nothing left to do: sizes come from the space."""

    # Weights by name -----------------------------------------------------------------

    def roles(self) -> dict[str, WeightRole]:
        """The role of every trainable weight by `op/weight`, in the order of the ops."""
        return weight_roles(self.space.ops())

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Every trainable variable by `op/weight`, in the order of `roles`."""
        return {
            path: getattr(self.op_layers[role.op], role.weight)
            for path, role in self.roles().items()
        }

    def weight_arrays(self) -> dict[str, np.ndarray]:
        """Copies of all weights by `op/weight`."""
        variables = self.variables_by_path()
        # A tensor first: NumPy 2 warns when it copies a variable of TensorFlow.
        return {path: K.convert_to_numpy(K.copy(variable)) for path, variable in variables.items()}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Sets all weights.

        Raises:
            ValueError: if names or shapes do not fit, before anything is changed.
        """
        variables = self.variables_by_path()
        missing = sorted(set(variables) - set(arrays))
        unknown = sorted(set(arrays) - set(variables))
        if missing or unknown:
            raise ValueError(
                f"Weights must be those of space '{self.space.name}'. "
                f"Received: missing {missing[:3]}, unknown {unknown[:3]}"
            )
        for path, variable in variables.items():
            if tuple(variable.shape) != arrays[path].shape:
                raise ValueError(
                    f"Weight '{path}' of space '{self.space.name}' must have the shape "
                    f"{tuple(variable.shape)}. Received: {arrays[path].shape}"
                )
        for path, variable in variables.items():
            variable.assign(arrays[path])

    def child_weights(self, genotype: Genotype) -> dict[str, np.ndarray]:
        """The weights of a child, by the paths of its variables."""
        return slice_weights(self.weight_arrays(), genotype.spec().ops())

    # Running children ----------------------------------------------------------------

    def call(self, inputs: Any, genotype: Genotype | None = None) -> Any:
        """Runs one child statically, the biggest by default."""
        return self.run(inputs, genotype or self.space.biggest())

    def run(
        self,
        images: Any,
        genotype: Genotype,
        mode: str = "static",
        dropout_mask: Any = None,
        remat: bool = False,
    ) -> Any:
        """Logits of one child, normalized by the statistics of the batch.

        Args:
            images: `(batch, resolution, resolution, channels)` at the genotype's
                resolution, in the input range -1..1.
            genotype: of this supernet's space.
            mode: "static", "sliced" (TensorFlow only) or "masked".
            dropout_mask: `(batch, width of the biggest child's dropout)`, 0 or
                1 / (1 - rate); None for no dropout.
            remat: whether a backward pass computes what lies within blocks again instead of
                storing it; not in sliced mode.

        Returns:
            `(batch, classes)`.

        Raises:
            ValueError: for a genotype of another space, an unknown mode, or images that
                are not at the genotype's resolution.
        """
        require_choice("mode", mode, MODES)
        require(not (remat and mode == "sliced"), "remat", "False in sliced mode", remat)
        if genotype not in self.space:
            raise ValueError(
                f"`genotype` must be of space '{self.space.name}' with {self.space.classes} "
                f"classes. Received: {genotype!r}, {genotype.space.classes} classes"
            )
        shape = genotype.spec().input_shape
        if tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"`images` must be (batch, {', '.join(map(str, shape))}), the genotype's "
                f"resolution. Received: {tuple(images.shape)}"
            )
        if mode != "static":
            return self.run_table(images, size_table(genotype), mode, dropout_mask, remat)
        tensors = {INPUT: images}
        ops = genotype.spec().ops()
        for _, group in itertools.groupby(ops, key=lambda op: op.block):
            block = list(group)
            run = functools.partial(self._static_block, block, dropout_mask=dropout_mask)
            _run_block(run, block, tensors, remat)
        return tensors[ops[-1].name]

    def _static_block(self, ops: list[Op], tensors: dict[str, Any], dropout_mask: Any) -> None:
        for op in ops:
            x = tensors[op.inputs[0]]
            if isinstance(op, Dropout):
                y = drop(x, dropout_mask)
            elif isinstance(op, (Conv, DepthwiseConv)):
                sizes = {"kernel_size": op.kernel_size}
                if isinstance(op, Conv):
                    sizes["channels"] = op.channels
                y = self.op_layers[op.name](x, **sizes)
            elif isinstance(op, Dense):
                y = self.op_layers[op.name](x, channels=op.channels)
            elif isinstance(op, BatchNorm):
                y = self.op_layers[op.name](x)
            else:
                y = apply_weightless(op, *(tensors[name] for name in op.inputs))
            tensors[op.name] = y

    def run_table(
        self,
        images: Any,
        table: Any,
        mode: str,
        dropout_mask: Any = None,
        remat: bool = False,
    ) -> Any:
        """Logits of the child with this size table; `run` with tensors for sizes.

        Args:
            images: `(batch, height, width, channels)`.
            table: int32 `(ops, 4)`, an array or a tensor (`bignas_tf.spaces.sizes`).
            mode: "sliced" or "masked".
            dropout_mask: as in `run`.
            remat: as in `run`.

        Returns:
            `(batch, classes)`.
        """
        walk = TableWalk(self, K.convert_to_tensor(table, "int32"), mode == "masked")
        tensors = {INPUT: images}
        numbered = enumerate(self.space.ops())
        for block, group in itertools.groupby(numbered, key=lambda pair: pair[1].block):
            ops = list(group)
            run = functools.partial(walk.block, ops, dropout_mask=dropout_mask)
            if block in self._optional_blocks:
                run = functools.partial(walk.optional_block, ops)
            _run_block(run, [op for _, op in ops], tensors, remat)
        return tensors[self.space.ops()[-1].name]

    def half_square_norm(self, genotype: Genotype | None = None, table: Any = None) -> Any:
        """Half the sum of squares of the kernels that a child uses, for an L2 term.

        Args:
            genotype: of the child, for static shapes, or
            table: its size table, for masks.
        """
        total: Any = 0.0
        if genotype is not None:
            for op in genotype.spec().ops():
                if isinstance(op, (Conv, Dense, DepthwiseConv)):
                    total += K.sum(K.square(self._kernel(op, _sizes(op), masked=False)))
            return total / 2
        table = K.convert_to_tensor(table, "int32")
        for index, op in enumerate(self.space.ops()):
            if isinstance(op, (Conv, Dense, DepthwiseConv)):
                row = table[index]
                kernel = self._kernel(op, tuple(row[c] for c in range(3)), masked=True)
                total += K.sum(K.square(kernel)) * K.cast(row[PRESENT], kernel.dtype)
        return total / 2

    def _kernel(self, op: Op, sizes: tuple[Any, Any, Any], masked: bool) -> Any:
        layer = self.op_layers[op.name]
        in_channels, channels, kernel_size = sizes
        if isinstance(op, Conv):
            return layer.kernel_part(in_channels, channels, kernel_size, masked)
        if isinstance(op, DepthwiseConv):
            return layer.kernel_part(channels, kernel_size, masked)
        return layer.kernel_part(in_channels, channels, masked)

    # Saving --------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "space": self.space.config(),
            "seed": self.seed,
            "zero_gamma": self.zero_gamma,
            "synchronized": self.synchronized,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Supernet:
        config = dict(config)
        config["space"] = space_from_config(config["space"])
        return cls(**config)


def _run_block(
    run: Callable[[dict[str, Any]], None], ops: list[Op], tensors: dict[str, Any], remat: bool
) -> None:
    """Runs a block; with `remat` its output only is kept for the backward pass."""
    if not remat:
        run(tensors)
        return
    own = {op.name for op in ops}
    sources = sorted({name for op in ops for name in op.inputs} - own)

    def output(*values: Any) -> Any:
        inner = dict(zip(sources, values, strict=True))
        run(inner)
        return inner[ops[-1].name]

    tensors[ops[-1].name] = keras.remat(output)(*(tensors[name] for name in sources))


def _sizes(op: Op) -> tuple[int, int, int]:
    return op.in_channels, op.channels, getattr(op, "kernel_size", 1)
