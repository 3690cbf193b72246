"""TensorFlow's swish with a gradient that runs over the memory four times instead of six.

What it multiplies by the sigmoid in one go, TensorFlow calls the gradient of softplus.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.autograph.experimental.do_not_convert  # would take the gradient for one to convert
@tf.custom_gradient
def swish(x: Any) -> Any:
    """`x * sigmoid(x)` of floats of any shape, to the last digit as `tf.nn.silu`."""
    y = x * tf.sigmoid(x)

    def gradient(dy: Any) -> Any:
        # s + x s (1 - s) = s (1 + x - y); layers that follow keep y anyway for their own gradients.
        return tf.raw_ops.SoftplusGrad(gradients=dy, features=x) * ((x - y) + 1)

    return y, gradient
