"""Elastic dense layer."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops as K

from bignas_tf.checks import require_int
from bignas_tf.layers.slicing import Size, channel_mask, check_channels, check_inputs, first


@keras.saving.register_keras_serializable(package="bignas_tf")
class ElasticDense(keras.layers.Layer):
    """Dense layer whose input and output width vary per call.

    Args:
        max_in_channels: int, input width of the biggest child.
        max_channels: int, output width of the biggest child.
        use_bias: bool.
        kernel_initializer: of the kernel.

    Call arguments:
        inputs: `(batch, in_channels)`, float; with `masked` always `max_in_channels` wide
            and zero beyond the active channels.
        channels: int or int32 scalar, at most `max_channels`; None for all.
        masked: bool, sizes as masks.

    Returns:
        `(batch, channels)`; with `masked` `max_channels` wide.

    Raises:
        ValueError: if a size is no positive int; in a call for inputs or `channels` given as
            int that the weights do not have.
    """

    def __init__(
        self,
        max_in_channels: int,
        max_channels: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require_int("max_in_channels", max_in_channels)
        require_int("max_channels", max_channels)
        self.max_in_channels = max_in_channels
        self.max_channels = max_channels
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any = None) -> None:
        self.kernel = self.add_weight(
            shape=(self.max_in_channels, self.max_channels),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.max_channels,), initializer="zeros", name="bias"
            )
        self.built = True

    def kernel_part(self, in_channels: Size, channels: Size, masked: bool = False) -> Any:
        """The kernel that a child uses; with `masked` the whole, zero elsewhere."""
        if not masked:
            return first(first(self.kernel, 0, in_channels), 1, channels)
        kernel = K.convert_to_tensor(self.kernel)
        if in_channels is not None:
            kernel = kernel * channel_mask(self.max_in_channels, in_channels, kernel.dtype)[:, None]
        if channels is not None:
            kernel = kernel * channel_mask(self.max_channels, channels, kernel.dtype)
        return kernel

    def call(self, inputs: Any, channels: Size = None, masked: bool = False) -> Any:
        check_inputs(inputs, self.max_in_channels, masked)
        check_channels(channels, self.max_channels)
        in_channels = None if masked else K.shape(inputs)[-1]
        outputs = K.matmul(inputs, self.kernel_part(in_channels, channels, masked))
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
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
