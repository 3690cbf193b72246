"""The arithmetic of primitive ops on tensors, for any Keras backend.

Sizes come from the tensors themselves, so the same functions serve static shapes and,
on TensorFlow, shapes known only when the graph runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops as K

from bignas_tf.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    GlobalPool,
    Multiply,
    Op,
    Pool,
    Subtract,
)


def full_precision() -> Any:
    """A context in which accelerators do not round the factors of float32 products.

    An exported child does not either. Only JAX rounds unless told not to.
    """
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.default_matmul_precision("highest")


def _fused(x: Any) -> Any:
    """The module of TensorFlow's fused batch normalization; None where it does not apply.

    On CPU it takes a quarter to a half of the time of separate ops.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    if keras.backend.backend() != "tensorflow" or dtype != "float32" or len(x.shape) != 4:
        return None
    from bignas_tf import fused_batch_norm

    return fused_batch_norm


def moments(x: Any) -> tuple[Any, Any]:
    """Mean and population variance per channel over all other axes of `x`.

    Sum over count, not `keras.ops.mean`: under JAX that computes float64 in float32.
    """
    fused = _fused(x)
    if fused is not None:
        return fused.moments(x)
    axes = tuple(range(len(x.shape) - 1))
    count = K.cast(K.prod(K.stack([K.shape(x)[axis] for axis in axes])), x.dtype)
    mean = K.sum(x, axis=axes) / count
    return mean, K.sum(K.square(x - mean), axis=axes) / count


def normalize(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Batch normalization with given statistics."""
    fused = _fused(x)
    if fused is not None:
        return fused.normalize(x, mean, variance, gamma, beta, epsilon)
    scale = gamma * K.rsqrt(variance + epsilon)
    return x * scale + (beta - mean * scale)


def replicas() -> int:
    """Replicas of tf.distribute that run the present function in sync; 1 outside of it."""
    if keras.backend.backend() != "tensorflow":
        return 1
    from bignas_tf import synchronized_batch_norm

    return synchronized_batch_norm.replicas()


def normalize_by_batch(
    x: Any, gamma: Any, beta: Any, epsilon: float, synchronized: int | None = None
) -> Any:
    """Batch normalization with the statistics of `x`, `(batch, height, width, channels)`.

    With `synchronized`, the most channels that `x` ever has, they are those of all replicas.
    """
    if synchronized and replicas() > 1:
        from bignas_tf import synchronized_batch_norm

        return synchronized_batch_norm.normalize_by_global_batch(
            x, gamma, beta, epsilon, synchronized
        )
    fused = _fused(x)
    if fused is not None:
        return fused.normalize_by_batch(x, gamma, beta, epsilon)
    mean, variance = moments(x)
    return normalize(x, mean, variance, gamma, beta, epsilon)


def conv(x: Any, kernel: Any, strides: int, dilation: int = 1) -> Any:
    """Convolution with 'same' padding; `kernel` is `(k, k, in_channels, channels)`."""
    pointwise = kernel.shape[:3] == (1, 1, x.shape[-1]) and strides == 1
    if pointwise and keras.backend.backend() == "jax":
        return K.matmul(x, kernel[0, 0])  # XLA on CPU: a third of the convolution's time
    return K.conv(x, kernel, strides=strides, padding="same", dilation_rate=dilation)


def depthwise_conv(x: Any, kernel: Any, strides: int, dilation: int = 1) -> Any:
    """Depthwise convolution with 'same' padding; `kernel` is `(k, k, channels, 1)`.

    Under XLA a sum of shifted products, which compiles to one fused loop: on CPU it takes a
    twentieth of the grouped convolution's time, with gradients a seventh.
    """
    if keras.backend.backend() != "jax":
        return K.depthwise_conv(x, kernel, strides=strides, padding="same", dilation_rate=dilation)
    size = kernel.shape[0]
    reach = (size - 1) * dilation + 1
    outputs = [-(-length // strides) for length in x.shape[1:3]]
    padding = [
        max((out - 1) * strides + reach - length, 0)
        for out, length in zip(outputs, x.shape[1:3], strict=True)
    ]
    x = K.pad(x, [[0, 0], *([p // 2, p - p // 2] for p in padding), [0, 0]])
    height, width = ((out - 1) * strides + 1 for out in outputs)
    y: Any = 0
    for i in range(size):
        for j in range(size):
            top, left = i * dilation, j * dilation
            part = x[:, top : top + height : strides, left : left + width : strides]
            y = y + part * kernel[i, j, :, 0]
    return y


def apply_weightless(op: Op, *inputs: Any) -> Any:
    """Runs an op that has no weights (dropout excepted: it needs its mask)."""
    x = inputs[0]
    if isinstance(op, Activation):
        if op.function == "swish" and keras.backend.backend() == "tensorflow":
            from bignas_tf.tensorflow_swish import swish

            return swish(x)
        return keras.activations.get(op.function)(x)
    if isinstance(op, Pool):
        pool = K.average_pool if op.kind == "average" else K.max_pool
        return pool(x, op.pool_size, op.strides, padding="same")
    if isinstance(op, GlobalPool):
        dtype = keras.backend.standardize_dtype(x.dtype)
        if dtype in ("float16", "bfloat16"):  # a sum of a large map would not fit
            x = K.cast(x, "float32")
        shape = K.shape(x)
        area = K.cast(shape[1] * shape[2], x.dtype)
        return K.cast(K.sum(x, axis=(1, 2), keepdims=op.keepdims) / area, dtype)
    if isinstance(op, Add):
        return sum(inputs[1:], x)
    if isinstance(op, Subtract):
        return x - inputs[1]
    if isinstance(op, Multiply):
        return x * inputs[1]
    raise TypeError(f"No elastic form of op '{op.name}' of type {type(op).__name__}")


def apply_finished(op: Op, weights: Mapping[str, Any], *inputs: Any) -> Any:
    """Runs an op of a finished network in inference mode.

    Args:
        op: of any kind.
        weights: tensors by `op/weight`, moving statistics included.
        inputs: `(batch, height, width, channels)` or flat.
    """
    x = inputs[0]
    if isinstance(op, BatchNorm):
        mean, variance, gamma, beta = (
            weights[f"{op.name}/{name}"]
            for name in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return normalize(x, mean, variance, gamma, beta, op.epsilon)
    if isinstance(op, Dropout):
        return x
    if isinstance(op, Concat):
        return K.concatenate(inputs, axis=-1)
    if not isinstance(op, (Conv, DepthwiseConv, Dense)):
        return apply_weightless(op, *inputs)
    kernel = weights[f"{op.name}/kernel"]
    if isinstance(op, DepthwiseConv):
        return depthwise_conv(x, kernel, op.strides, op.dilation)
    if isinstance(op, Conv):
        y = conv(x, kernel, op.strides, op.dilation)
    else:
        y = K.matmul(x, kernel)
    return y + weights[f"{op.name}/bias"] if op.use_bias else y
