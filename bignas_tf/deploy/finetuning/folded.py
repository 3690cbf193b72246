"""Finished networks with batch norm folded into their convolutions: what a file computes.

A calibrated child normalizes with fixed statistics, so that each batch norm is a factor
per channel, which the convolution before it can hold, and a bias.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from bignas_tf.checks import require
from bignas_tf.child import LayerFactory, walk
from bignas_tf.ops import INPUT, BatchNorm, Conv, Dense, DepthwiseConv, Dropout, Op
from bignas_tf.spec import NetworkSpec

# As `folded_weights` returns them.
Weights = Mapping[str, list[np.ndarray]]


def folds(ops: Sequence[Op]) -> dict[str, str]:
    """For every batch norm by name the convolution that it is folded into.

    Raises:
        ValueError: for one whose input is no convolution without bias, or is read elsewhere.
    """
    by_name = {op.name: op for op in ops}
    found = {}
    for op in ops:
        if not isinstance(op, BatchNorm):
            continue
        source = by_name.get(op.inputs[0])
        biased = isinstance(source, Conv) and source.use_bias
        alone = sum(op.inputs[0] in other.inputs for other in ops) == 1
        ok = isinstance(source, (Conv, DepthwiseConv)) and alone and not biased
        require(ok, "spec", "such that each batch norm follows a convolution of its own", op.name)
        found[op.name] = op.inputs[0]
    return found


def folded_weights(spec: NetworkSpec, arrays: Mapping[str, np.ndarray]) -> Weights:
    """Kernels and biases of a calibrated network without its batch norm.

    Args:
        spec: the network.
        arrays: its weights by `op/weight`, moving statistics included.

    Returns:
        For every op with a kernel its kernel and, if it has one, its bias, float32.

    Raises:
        ValueError: as `folds` does.
    """
    ops = spec.ops()
    norms = {source: norm for norm, source in folds(ops).items()}
    epsilons = {op.name: op.epsilon for op in ops if isinstance(op, BatchNorm)}
    found = {}
    for op in ops:
        if not isinstance(op, (Conv, DepthwiseConv, Dense)):
            continue
        kernel, bias = arrays[f"{op.name}/kernel"], arrays.get(f"{op.name}/bias")
        norm = norms.get(op.name)
        if norm is not None:
            gamma, beta, mean, variance = (
                arrays[f"{norm}/{name}"].astype(np.float64)
                for name in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            scale = gamma / np.sqrt(variance + epsilons[norm])
            # A depthwise kernel is (k, k, channels, 1).
            kernel = kernel * (scale[:, None] if isinstance(op, DepthwiseConv) else scale)
            bias = beta - mean * scale
        found[op.name] = [a.astype(np.float32) for a in (kernel, bias) if a is not None]
    return found


@dataclasses.dataclass(frozen=True)
class FoldingFactory(LayerFactory):
    """Makes the layers of a folded network, with their weights in them.

    Dropout is left out: only the biggest child of a supernet is regularized.

    Attributes:
        weights: of `folded_weights`.
    """

    weights: Weights = dataclasses.field(default_factory=dict)

    def make(self, op: Op, **others) -> Any:
        if isinstance(op, (BatchNorm, Dropout)):
            return lambda x: x
        if op.name not in self.weights:
            return self.wrap(op, super().make(op, **others))
        weights = self.weights[op.name]
        layer = super().make(op, use_bias=len(weights) == 2, **others)
        layer.build((None, *(() if isinstance(op, Dense) else (None, None)), op.in_channels))
        layer.set_weights(weights)
        return self.wrap(op, layer)

    def wrap(self, op: Op, layer: Any) -> Any:
        """What is called instead of the layer of `op`."""
        return layer


def build_folded(spec: NetworkSpec, weights: Weights) -> Any:
    """Builds a folded network as a functional Keras model of stock layers.

    Args:
        spec: the network.
        weights: of `folded_weights`.

    Returns:
        A model with the outputs of the calibrated child, up to rounding. Its attribute
        `spec` is `spec`.
    """
    policy = keras.mixed_precision.Policy("float32")
    factory = FoldingFactory(keras, policy, None, weights)
    inputs = keras.Input(spec.input_shape, name=INPUT)
    model = keras.Model(inputs, walk(factory, spec.ops(), inputs))
    model.spec = spec
    return model
