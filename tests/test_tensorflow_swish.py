"""The swish of training against float64 and TensorFlow's own."""

import numpy as np
import pytest
import tensorflow as tf

from bignas_tf.tensorflow_swish import swish


def with_gradient(function, x, dy):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, tape.gradient(y, x, dy)


def inputs():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 3, 4000), [0.0, -100.0, 100.0, -1e4, 1e4]])
    return x.astype("float32"), rng.normal(size=x.size).astype("float32")


@pytest.mark.parametrize("traced", [False, True])
def test_outputs_are_tensorflow_s_and_gradients_those_of_float64(traced):
    x, dy = inputs()
    run = tf.function(with_gradient) if traced else with_gradient
    y, dx = run(swish, tf.constant(x), tf.constant(dy))
    expected, _ = run(tf.nn.silu, tf.constant(x), tf.constant(dy))
    np.testing.assert_array_equal(y, expected)
    x, dy = x.astype("float64"), dy.astype("float64")
    sigmoid = 1 / (1 + np.exp(-np.maximum(x, -700)))
    np.testing.assert_allclose(dx, dy * sigmoid * (1 + x * (1 - sigmoid)), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("dtype", "precision"), [("float16", 2**-10), ("bfloat16", 2**-7), ("float64", 2**-52)]
)
def test_other_types_keep_their_precision(dtype, precision):
    x, dy = (tf.cast(value[:4000], dtype) for value in inputs())
    y, dx = with_gradient(swish, x, dy)
    expected_y, expected = with_gradient(tf.nn.silu, x, dy)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_array_equal(y, expected_y)
    found, expected = (tf.cast(value, "float64").numpy() for value in (dx, expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=20 * precision)
