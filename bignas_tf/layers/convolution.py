"""Elastic convolutions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops as K

from bignas_tf.checks import require_int
from bignas_tf.layers.slicing import (
    Size,
    centre,
    channel_mask,
    check_channels,
    check_inputs,
    check_kernel_size,
    check_odd,
    first,
    ring_mask,
)
from bignas_tf.primitives import conv, depthwise_conv


@keras.saving.register_keras_serializable(package="bignas_tf")
class ElasticConv2D(keras.layers.Layer):
    """Convolution whose channels and kernel size vary per call.

    The weights are those of the biggest child; a smaller child uses the first input and
    output channels and the centre of the kernel.

    Args:
        max_in_channels: int, input channels of the biggest child.
        max_channels: int, output channels of the biggest child.
        max_kernel_size: odd int, kernel size of the biggest child.
        strides: int.
        dilation: int.
        use_bias: bool.
        kernel_initializer: of the kernel.

    Call arguments:
        inputs: `(batch, height, width, in_channels)`, float; with `masked` always
            `max_in_channels` wide and zero beyond the active channels.
        channels: int or int32 scalar, at most `max_channels`; None for all.
        kernel_size: odd int or int32 scalar, at most `max_kernel_size`; None for all.
        masked: bool, sizes as masks.

    Returns:
        `(batch, ceil(height / strides), ceil(width / strides), channels)`; with `masked`
        `max_channels` wide.

    Raises:
        ValueError: if a size is no positive int or `max_kernel_size` is even; in a call for
            inputs or a size given as int that the weights do not have, and a `kernel_size` of 1
            at a stride above 1.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, section 3.2.
    """

    def __init__(
        self,
        max_in_channels: int,
        max_channels: int,
        max_kernel_size: int,
        strides: int = 1,
        dilation: int = 1,
        use_bias: bool = False,
        kernel_initializer: Any = "he_normal",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_int("max_in_channels", max_in_channels)
        _require_sizes(max_channels, max_kernel_size, strides, dilation)
        self.max_in_channels = max_in_channels
        self.max_channels = max_channels
        self.max_kernel_size = max_kernel_size
        self.strides = strides
        self.dilation = dilation
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any = None) -> None:
        k = self.max_kernel_size
        self.kernel = self.add_weight(
            shape=(k, k, self.max_in_channels, self.max_channels),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.max_channels,), initializer="zeros", name="bias"
            )
        self.built = True

    def kernel_part(
        self, in_channels: Size, channels: Size, kernel_size: Size, masked: bool = False
    ) -> Any:
        """The kernel that a child uses; with `masked` the whole, zero elsewhere."""
        if not masked:
            part = first(first(self.kernel, 2, in_channels), 3, channels)
            return centre(part, kernel_size, self.max_kernel_size)
        kernel = K.convert_to_tensor(self.kernel)
        if in_channels is not None:
            kernel = kernel * channel_mask(self.max_in_channels, in_channels, kernel.dtype)[:, None]
        if channels is not None:
            kernel = kernel * channel_mask(self.max_channels, channels, kernel.dtype)
        if kernel_size is not None and self.max_kernel_size > 1:
            kernel = kernel * ring_mask(self.max_kernel_size, kernel_size, kernel.dtype)
        return kernel

    def call(
        self, inputs: Any, channels: Size = None, kernel_size: Size = None, masked: bool = False
    ) -> Any:
        check_inputs(inputs, self.max_in_channels, masked)
        check_channels(channels, self.max_channels)
        check_kernel_size(kernel_size, self.max_kernel_size, self.strides)
        in_channels = None if masked else K.shape(inputs)[-1]
        kernel = self.kernel_part(in_channels, channels, kernel_size, masked)
        outputs = conv(inputs, kernel, self.strides, self.dilation)
        if self.bias is None:
            return outputs
        if masked and channels is not None:
            return outputs + self.bias * channel_mask(self.max_channels, channels, outputs.dtype)
        return outputs + first(self.bias, 0, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_in_channels": self.max_in_channels,
            "max_channels": self.max_channels,
            "max_kernel_size": self.max_kernel_size,
            "strides": self.strides,
            "dilation": self.dilation,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _require_sizes(max_channels: int, max_kernel_size: int, strides: int, dilation: int) -> None:
    require_int("max_channels", max_channels)
    require_int("max_kernel_size", max_kernel_size)
    check_odd(max_kernel_size)
    require_int("strides", strides)
    require_int("dilation", dilation)


@keras.saving.register_keras_serializable(package="bignas_tf")
class ElasticDepthwiseConv2D(keras.layers.Layer):
    """Depthwise convolution whose channels and kernel size vary per call.

    The weights are those of the biggest child; a smaller child uses the first filters,
    as many as its input has channels, and the centre of the kernel.

    Args:
        max_channels: int, channels of the biggest child.
        max_kernel_size: odd int, kernel size of the biggest child.
        strides: int.
        dilation: int.
        kernel_initializer: of the kernel.

    Call arguments:
        inputs: `(batch, height, width, channels)`, float; with `masked` always
            `max_channels` wide and zero beyond the active channels.
        kernel_size: odd int or int32 scalar, at most `max_kernel_size`; None for all.
        masked: bool, `kernel_size` as a mask.

    Returns:
        `(batch, ceil(height / strides), ceil(width / strides), channels)`.

    Raises:
        ValueError: if a size is no positive int or `max_kernel_size` is even; in a call for
            inputs or a size given as int that the weights do not have, and a `kernel_size` of 1
            at a stride above 1.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, section 3.2.
    """

    def __init__(
        self,
        max_channels: int,
        max_kernel_size: int,
        strides: int = 1,
        dilation: int = 1,
        kernel_initializer: Any = "he_normal",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _require_sizes(max_channels, max_kernel_size, strides, dilation)
        self.max_channels = max_channels
        self.max_kernel_size = max_kernel_size
        self.strides = strides
        self.dilation = dilation
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any = None) -> None:
        k = self.max_kernel_size
        self.kernel = self.add_weight(
            shape=(k, k, self.max_channels, 1), initializer=self.kernel_initializer, name="kernel"
        )
        self.built = True

    def kernel_part(self, channels: Size, kernel_size: Size, masked: bool = False) -> Any:
        """The kernel that a child uses; with `masked` the whole, zero elsewhere."""
        if not masked:
            part = first(self.kernel, 2, channels)
            return centre(part, kernel_size, self.max_kernel_size)
        kernel = K.convert_to_tensor(self.kernel)
        if channels is not None:
            kernel = kernel * channel_mask(self.max_channels, channels, kernel.dtype)[:, None]
        if kernel_size is not None:
            kernel = kernel * ring_mask(self.max_kernel_size, kernel_size, kernel.dtype)
        return kernel

    def call(self, inputs: Any, kernel_size: Size = None, masked: bool = False) -> Any:
        check_inputs(inputs, self.max_channels, masked)
        check_kernel_size(kernel_size, self.max_kernel_size, self.strides)
        channels = None if masked else K.shape(inputs)[-1]
        kernel = self.kernel_part(channels, kernel_size, masked)
        return depthwise_conv(inputs, kernel, self.strides, self.dilation)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_channels": self.max_channels,
            "max_kernel_size": self.max_kernel_size,
            "strides": self.strides,
            "dilation": self.dilation,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
