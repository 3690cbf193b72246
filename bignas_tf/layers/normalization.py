"""Elastic batch normalization."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops as K

from bignas_tf.checks import require_int
from bignas_tf.layers.slicing import Size, channel_mask, check_channels, check_inputs, first
from bignas_tf.primitives import normalize_by_batch


@keras.saving.register_keras_serializable(package="bignas_tf")
class ElasticBatchNormalization(keras.layers.Layer):
    """Batch normalization by the statistics of the batch, with elastic channels.

    It keeps no moving statistics: over varying children they are ill-defined. A child's
    are estimated after slicing (`bignas_tf.calibration`).

    Args:
        max_channels: int, channels of the biggest child.
        epsilon: float, added to the variance.
        zero_gamma: bool, gamma starts at 0 instead of 1.
        synchronized: bool, whether under tf.distribute the statistics are those of the global
            batch instead of the replica's. Under JAX they always are.

    Call arguments:
        inputs: `(batch, height, width, channels)`, float.
        channels: with `masked` the number of active channels; otherwise unused, as the
            input has them all.
        masked: bool.

    Returns:
        A tensor of the shape of `inputs`.

    Raises:
        ValueError: if `max_channels` is no positive int; in a call for inputs or `channels`
            given as int that the weights do not have.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        max_channels: int,
        epsilon: float = 1e-3,
        zero_gamma: bool = False,
        synchronized: bool = True,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)  # statistics stay float32
        require_int("max_channels", max_channels)
        self.max_channels = max_channels
        self.epsilon = epsilon
        self.zero_gamma = zero_gamma
        self.synchronized = synchronized

    def build(self, input_shape: Any = None) -> None:
        # `autocast` of the layer alone does not keep a mixed policy from casting its weights.
        shared = {"shape": (self.max_channels,), "autocast": False}
        start = "zeros" if self.zero_gamma else "ones"
        self.gamma = self.add_weight(initializer=start, name="gamma", **shared)
        self.beta = self.add_weight(initializer="zeros", name="beta", **shared)
        self.built = True

    def call(self, inputs: Any, channels: Size = None, masked: bool = False) -> Any:
        check_inputs(inputs, self.max_channels, masked)
        check_channels(channels, self.max_channels)
        x = K.cast(inputs, self.variable_dtype)
        if masked:
            gamma, beta = self.gamma, self.beta
            if channels is not None:  # beyond the mask the input is 0 and normalizes to 0
                beta = beta * channel_mask(self.max_channels, channels, x.dtype)
        else:
            width = K.shape(x)[-1]
            gamma, beta = first(self.gamma, 0, width), first(self.beta, 0, width)
        gamma, beta = K.convert_to_tensor(gamma), K.convert_to_tensor(beta)
        width = self.max_channels if self.synchronized else None
        y = normalize_by_batch(x, gamma, beta, self.epsilon, width)
        return K.cast(y, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_channels": self.max_channels,
            "epsilon": self.epsilon,
            "zero_gamma": self.zero_gamma,
            "synchronized": self.synchronized,
        }
