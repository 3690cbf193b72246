"""TensorFlow's fused batch normalization, and what to do where its CPU kernel is slow.

oneDNN's kernel on CPU is fast for multiples of 16 channels only; for all others its forward pass
takes five times as long, more than separate ops that each run over the memory once.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

FAST_CHANNELS = 16


@functools.cache
def _on_cpu() -> bool:
    return not tf.config.list_physical_devices("GPU")


def _fast(channels: Any) -> Any:
    """Whether the kernel is fast: a bool, or a tensor for a number known only in the graph."""
    return channels % FAST_CHANNELS == 0


def _choose(x: Any, fused: Any, separate: Any) -> Any:
    """The result of one of two functions, by the channels of `x`."""
    if not _on_cpu():
        return fused()
    channels = x.shape[-1]
    if channels is None:
        return tf.cond(_fast(tf.shape(x)[-1]), fused, separate)
    return fused() if _fast(channels) else separate()


def _kernel(x: Any, gamma: Any, beta: Any, epsilon: float, **statistics: Any) -> Any:
    none = tf.zeros([0])
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=statistics.get("mean", none),
        variance=statistics.get("variance", none),
        epsilon=epsilon,
        is_training=not statistics,
    )


def _count(x: Any) -> Any:
    return tf.cast(tf.size(x) // tf.shape(x)[-1], x.dtype)


def column_sums(x: Any) -> Any:
    """Sums over all axes but the last, as a product with ones: one run over the memory."""
    rows = tf.reshape(x, (-1, tf.shape(x)[-1]))
    return tf.matmul(tf.ones((1, tf.shape(rows)[0]), x.dtype), rows)[0]


def _separate_moments(x: Any) -> tuple[Any, Any]:
    count = _count(x)
    mean = column_sums(x) / count
    return mean, column_sums(tf.math.squared_difference(x, mean)) / count


def _fused_moments(x: Any) -> tuple[Any, Any]:
    channels = tf.shape(x)[-1:]
    found = _kernel(x, tf.ones(channels), tf.zeros(channels), 1e-3)
    count = _count(x)  # the kernel's variance is the sample's; of a single value it is 0
    return found.batch_mean, found.batch_variance * (tf.maximum(count - 1, 1) / count)


def moments(x: Any) -> tuple[Any, Any]:
    """Mean and population variance per channel of float32 `(batch, height, width, channels)`."""
    return _choose(x, lambda: _fused_moments(x), lambda: _separate_moments(x))


def normalize(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Batch normalization of float32 `x` with given statistics."""

    def separate() -> Any:
        scale = gamma * tf.math.rsqrt(variance + epsilon)
        return x * scale + (beta - mean * scale)

    def fused() -> Any:
        return _kernel(x, gamma, beta, epsilon, mean=mean, variance=variance).y

    return _choose(x, fused, separate)


def normalize_by_batch(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Batch normalization of float32 `x` with its own statistics."""
    channels = x.shape[-1]
    if not _on_cpu() or (channels is not None and _fast(channels)):
        return _kernel(x, gamma, beta, epsilon).y

    @tf.custom_gradient
    def run(x: Any, gamma: Any, beta: Any) -> Any:
        def separate() -> Any:
            mean, variance = _separate_moments(x)
            scale = gamma * tf.math.rsqrt(variance + epsilon)
            return (x - mean) * scale + beta, mean, variance

        def fused() -> Any:
            found = _kernel(x, gamma, beta, epsilon)
            return found.y, found.reserve_space_1, found.reserve_space_2

        y, mean, variance = _choose(x, fused, separate)

        def gradient(dy: Any) -> Any:
            found = tf.raw_ops.FusedBatchNormGradV3(  # fast for any number of channels
                y_backprop=dy, x=x, scale=gamma, reserve_space_1=mean, reserve_space_2=variance,
                reserve_space_3=tf.zeros([0]), epsilon=epsilon, is_training=True,
            )  # fmt: skip
            return found.x_backprop, found.scale_backprop, found.offset_backprop

        return y, gradient

    # Values, not variables: a custom gradient would have to name those.
    return run(x, tf.identity(gamma), tf.identity(beta))
