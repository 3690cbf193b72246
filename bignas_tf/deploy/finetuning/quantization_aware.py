"""Quantization-aware training: networks that round in training as their int8 file will.

Batch norm is folded before training, with the calibrated statistics: only then is a kernel
rounded in training the kernel rounded in the file. Left in place and folded by TFMOT or the
converter, each would normalize with statistics of batches, or round before it scales.
Rounding stands where TFLite rounds and nowhere else, so that no operator is left in float
and none has to rescale.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from bignas_tf.deploy.finetuning.folded import FoldingFactory, Weights, folds
from bignas_tf.deploy.finetuning.tfmot import Finetunable, build_wrapped, nothing, tf_keras, tfmot
from bignas_tf.deploy.preprocessing import BYTES
from bignas_tf.ops import (
    Activation,
    Add,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Multiply,
    Op,
    Pool,
    Subtract,
)
from bignas_tf.spec import NetworkSpec

_QUANTIZATION: Any = tfmot.quantization.keras
_Quantizer: Any = _QUANTIZATION.quantizers.Quantizer
_QuantizeConfig: Any = _QUANTIZATION.QuantizeConfig
_FUSED = ("relu", "relu6")  # TFLite makes them part of the op before
_FUSING = (Conv, DepthwiseConv, Dense, Add, Subtract, Multiply)
# Of ranges. TFMOT's 0.999, from -6..6, keeps two thirds of that for 400 steps.
_DECAY = 0.99
_UNIT = 255 / 256  # TFLite's sigmoid has steps of 1/256 from 0


class _Range(_Quantizer):
    """Eight bits between the moving averages of the batches' extremes, 0 among them.

    The first batches are averaged evenly: nothing is left of an initial range.
    """

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        return {
            part: layer.add_weight(f"{name}_{part}", shape=(), initializer="zeros", trainable=False)
            for part in ("low", "high", "batches")
        }

    def __call__(self, inputs: Any, training: bool, weights: Any, **kwargs: Any) -> Any:
        low, high, batches = (weights[part] for part in ("low", "high", "batches"))
        if training:
            share = tf.maximum(1 - _DECAY, 1 / (batches + 1))
            lowest = tf.minimum(tf.reduce_min(inputs), 0.0)
            highest = tf.maximum(tf.reduce_max(inputs), 0.0)
            low = low.assign((1 - share) * low + share * lowest)
            high = high.assign((1 - share) * high + share * highest)
            batches.assign_add(1.0)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)

    def get_config(self) -> dict[str, Any]:
        return {}


class _KernelRange(_Quantizer):
    """Eight bits, symmetric, per output channel; of a dense kernel one range, as in TFLite.

    TFMOT gives a depthwise kernel a single range too.
    """

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        shape = _as_columns(tensor_shape)[-1:] if len(tensor_shape) == 4 else ()
        return {
            "high": layer.add_weight(
                f"{name}_high", shape=shape, initializer="ones", trainable=False
            )
        }

    def __call__(self, inputs: Any, training: bool, weights: Any, **kwargs: Any) -> Any:
        high = weights["high"]
        # The operation takes channels as the last axis, which a depthwise kernel has before it.
        kernel = tf.reshape(inputs, _as_columns(inputs.shape))
        if training:
            axes = list(range(len(kernel.shape) - len(high.shape)))
            high = high.assign(tf.reduce_max(tf.abs(kernel), axes))
        quantize = tf.quantization.fake_quant_with_min_max_vars
        if len(high.shape):
            quantize = tf.quantization.fake_quant_with_min_max_vars_per_channel
        return tf.reshape(quantize(kernel, -high, high, narrow_range=True), inputs.shape)

    def get_config(self) -> dict[str, Any]:
        return {}


def _as_columns(shape: Any) -> list[int]:
    """A kernel's shape without a last axis of one."""
    sizes = list(shape)
    return sizes[:-1] if sizes[-1] == 1 and len(sizes) == 4 else sizes


class _Config(_QuantizeConfig):
    """What of a layer is quantized: its kernel, its output, both."""

    def __init__(self, kernel: str | None = None, output: bool = False):
        self.kernel = kernel
        self.output = output

    def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
        return [(getattr(layer, self.kernel), _KernelRange())] if self.kernel else []

    def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
        if self.kernel:
            (weight,) = quantize_weights
            setattr(layer, self.kernel, weight)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return [_Range()] if self.output else []

    def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
        """Activations are layers of their own."""

    def get_config(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "output": self.output}


def _unit(x: Any) -> Any:
    return tf.quantization.fake_quant_with_min_max_args(x, 0.0, _UNIT)


def _hard_sigmoid(x: Any) -> Any:
    y = tf.quantization.fake_quant_with_min_max_args(tf.nn.relu6(x + 3.0), 0.0, 6.0)
    return _unit(y * (1 / 6))


# As TFLite computes them: a swish is a product with a sigmoid in eight bits.
_EMULATED: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda x: _unit(tf.sigmoid(x)),
    "hard_sigmoid": _hard_sigmoid,
    "swish": lambda x: x * _unit(tf.sigmoid(x)),
}


@dataclasses.dataclass(frozen=True)
class _QuantizedFactory(FoldingFactory):
    """Wraps layers so that they round as the int8 file will.

    Attributes:
        fused: ops whose output is not rounded, for an activation that TFLite fuses follows.
    """

    fused: frozenset[str] = frozenset()

    def make(self, op: Op, **others: Any) -> Any:
        if isinstance(op, Activation):
            emulated = _EMULATED.get(op.function)
            others |= {"activation": emulated} if emulated else {}
        return super().make(op, **others)

    def wrap(self, op: Op, layer: Any) -> Any:
        kernel = None
        if op.name in self.weights:
            kernel = "depthwise_kernel" if isinstance(op, DepthwiseConv) else "kernel"
        gate = isinstance(op, Activation) and op.function in ("sigmoid", "hard_sigmoid")
        # Pooling keeps its input's scale; gates have rounded already.
        output = op.name not in self.fused and not gate and not isinstance(op, Pool)
        if kernel is None and not output:
            return layer
        return _QUANTIZATION.QuantizeWrapperV2(layer, _Config(kernel, output))


def _fused(ops: Sequence[Op]) -> frozenset[str]:
    """Ops that only an activation reads that TFLite fuses into them."""
    sources = folds(ops)
    reads = [
        (sources.get(name, name), op)
        for op in ops
        if not isinstance(op, BatchNorm)
        for name in op.inputs
    ]
    found = set()
    for op in ops:
        readers = [reader for name, reader in reads if name == op.name]
        fits = len(readers) == 1 and isinstance(op, _FUSING)
        if fits and isinstance(readers[0], Activation) and readers[0].function in _FUSED:
            found.add(op.name)
    return frozenset(found)


class _RoundedRescaling(tf_keras.layers.Rescaling):
    """Brings pixels to -1 to 1, in the eight bits of the file before and after the product."""

    def call(self, inputs: Any) -> Any:
        quantize = tf.quantization.fake_quant_with_min_max_args
        scaled = quantize(quantize(inputs, *BYTES) * self.scale, 0.0, BYTES[1] * self.scale)
        return scaled + self.offset  # rounded by the network, in the range that it learned


def of_pixels(model: Any) -> Any:
    """A network of `quantized` with its preprocessing inside.

    Args:
        model: takes images of -1 to 1.

    Returns:
        A model of tf_keras that takes pixels of 0 to 255.
    """
    inputs = tf_keras.Input(model.inputs[0].shape[1:], name="pixels")
    rescaling = _RoundedRescaling(2 / BYTES[1], -1.0, name="rescaling")
    return tf_keras.Model(inputs, model(rescaling(inputs)))


def quantized(spec: NetworkSpec, weights: Weights) -> Finetunable:
    """The network with the rounding of an int8 file, for quantization-aware training.

    Batch norm is folded, so that the kernels that training rounds are those of the file.

    Args:
        spec: the network.
        weights: of `folded_weights`.
    """
    identity = tf_keras.layers.Activation("linear", name="images")
    first = _QUANTIZATION.QuantizeWrapperV2(identity, _Config(output=True))
    fused = _fused(spec.ops())
    model = build_wrapped(spec, weights, _QuantizedFactory, first, fused=fused)
    return Finetunable(model, nothing, None)
