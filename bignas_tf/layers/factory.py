"""The elastic layer of an op, with its initial weights."""

from __future__ import annotations

import zlib
from typing import Any

import keras

from bignas_tf.layers.convolution import ElasticConv2D, ElasticDepthwiseConv2D
from bignas_tf.layers.dense import ElasticDense
from bignas_tf.layers.initializers import FanOutScaling
from bignas_tf.layers.normalization import ElasticBatchNormalization
from bignas_tf.ops import BatchNorm, Conv, Dense, DepthwiseConv, Op


def _initializer(seed: int, name: str, scale: float, distribution: str) -> FanOutScaling:
    return FanOutScaling(zlib.crc32(f"{seed}/{name}".encode()), scale, distribution)


def elastic_layer(
    op: Op, seed: int, zero_gamma: bool, synchronized: bool, dtype: Any
) -> keras.layers.Layer:
    """The elastic layer of `op`, at its largest sizes."""
    if isinstance(op, (Conv, DepthwiseConv)):
        initializer = _initializer(seed, op.name, 2.0, "normal")
        shared: dict[str, Any] = {
            "max_kernel_size": op.kernel_size,
            "strides": op.strides,
            "dilation": op.dilation,
            "kernel_initializer": initializer,
            "name": op.name,
            "dtype": dtype,
        }
        if isinstance(op, DepthwiseConv):
            return ElasticDepthwiseConv2D(op.channels, **shared)
        if op.groups != 1:
            raise ValueError(f"No elastic form of grouped convolutions. Received: op '{op.name}'")
        return ElasticConv2D(op.in_channels, op.channels, use_bias=op.use_bias, **shared)
    if isinstance(op, BatchNorm):
        return ElasticBatchNormalization(
            op.channels,
            op.epsilon,
            zero_gamma and op.zero_gamma,
            synchronized,
            name=op.name,
            dtype=dtype,
        )
    assert isinstance(op, Dense)  # noqa: S101 - the last of WEIGHTED
    return ElasticDense(
        op.in_channels,
        op.channels,
        op.use_bias,
        _initializer(seed, op.name, 1 / 3, "uniform"),
        name=op.name,
        dtype=dtype,
    )
