"""The size of a network's TFLite file, predicted from its ops alone.

A file is its weights, with batch norm folded into the convolutions, plus what it takes to
describe each tensor and, where tensors are quantized, each scale. The constants below were
fitted to files that TensorFlow 2.21 wrote; tests/deploy/test_block_files.py holds them to
files that the installed one writes.
"""

from __future__ import annotations

import math

from bignas_tf.checks import require_choice
from bignas_tf.ops import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Op,
    weight_shapes,
)
from bignas_tf.spec import NetworkSpec

QUANTIZATIONS = ("float32", "float16", "dynamic", "int8")

TENSOR_BYTES = 178  # name, shape, buffer and the operator that writes it
SCALE_BYTES = 12  # a float32 scale and an int64 zero point
DEQUANTIZED_BYTES = 192  # the operator that makes a float16 tensor float32 again, and its tensor
QUANTIZED_BYTES = 22  # what holds a tensor's scales
LEAST_DYNAMIC = 1024  # the converter leaves kernels of fewer values in float32
# TFLite's operators for an activation. ReLU and ReLU6 are part of the operator before it.
_OPERATORS = {
    "relu": 0, "relu6": 0, "hard_swish": 1, "sigmoid": 1, "swish": 2, "hard_sigmoid": 2,
}  # fmt: skip


def file_size_mb(spec: NetworkSpec, quantization: str = "float32") -> float:
    """Predicted size of the TFLite file.

    Args:
        spec: the network.
        quantization: one of `QUANTIZATIONS`: as `Quantization` names what the file stores.

    Returns:
        MB (1e6 bytes).

    Raises:
        ValueError: for another quantization.
    """
    require_choice("quantization", quantization, QUANTIZATIONS)
    size = 2 * TENSOR_BYTES  # the input, and the axes of all means
    for op in spec.ops():
        size += _written(op) * _activation_bytes(quantization)
        if isinstance(op, (Conv, DepthwiseConv, Dense)):
            size += _weight_bytes(op, quantization)
    return size / 1e6


def _written(op: Op) -> int:
    """Operators, and so tensors, that the file has for an op."""
    if isinstance(op, (BatchNorm, Dropout)):
        return 0
    return _OPERATORS[op.function] if isinstance(op, Activation) else 1


def _activation_bytes(quantization: str) -> int:
    return TENSOR_BYTES + (QUANTIZED_BYTES + SCALE_BYTES) * (quantization == "int8")


def _weight_bytes(op: Conv | DepthwiseConv | Dense, quantization: str) -> int:
    """Of a kernel and its bias, which every operator with a kernel has."""
    values = math.prod(weight_shapes(op)["kernel"])
    described = 2 * TENSOR_BYTES
    if quantization == "float32":
        return described + 4 * values + 4 * op.channels
    if quantization == "float16":
        return described + 2 * values + 2 * op.channels + 2 * DEQUANTIZED_BYTES
    if quantization == "dynamic":
        if values < LEAST_DYNAMIC:
            return described + 4 * values + 4 * op.channels
        return described + values + 4 * op.channels + _scales(op.channels)
    return described + values + 4 * op.channels + 2 * _scales(op.channels)


def _scales(count: int) -> int:
    return QUANTIZED_BYTES + SCALE_BYTES * count
