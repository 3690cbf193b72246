"""TensorFlow's batch normalization against float64, for channels that its kernel likes or not."""

import numpy as np
import pytest
import tensorflow as tf

from bignas_tf import fused_batch_norm

EPSILON = 1e-3
CHANNELS = (8, 24, 32)  # the CPU kernel is fast for the last only


def inputs(channels):
    rng = np.random.default_rng(channels)
    shape = (5, 6, 7, channels)
    arrays = (
        rng.normal(3, 2, shape), rng.uniform(0.5, 1.5, channels), rng.normal(size=channels),
        rng.normal(size=shape),
    )  # fmt: skip
    return [array.astype("float32") for array in arrays]


def with_gradients(function, x, gamma, beta, dy):
    with tf.GradientTape() as tape:
        tape.watch([x, gamma, beta])
        y = function(x, gamma, beta)
    return [y, *tape.gradient(y, [x, gamma, beta], dy)]


def reference(x, gamma, beta):
    mean = tf.reduce_mean(x, (0, 1, 2))
    variance = tf.reduce_mean((x - mean) ** 2, (0, 1, 2))
    return (x - mean) / tf.sqrt(variance + EPSILON) * gamma + beta


def by_batch(x, gamma, beta):
    return fused_batch_norm.normalize_by_batch(x, gamma, beta, EPSILON)


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


@pytest.fixture
def dynamic():
    """One trace for tensors of any size, as the children of sliced mode have."""
    sizes = [(None,) * 4, (None,), (None,), (None,) * 4]

    def compute(*tensors):
        return with_gradients(by_batch, *tensors)

    return tf.function(compute, [tf.TensorSpec(size) for size in sizes], autograph=False)


@pytest.mark.parametrize("channels", CHANNELS)
def test_outputs_and_gradients_are_those_of_float64(channels, dynamic):
    arrays = inputs(channels)
    expected = with_gradients(reference, *(tf.constant(a, tf.float64) for a in arrays))
    tensors = [tf.constant(a) for a in arrays]
    assert_close(with_gradients(by_batch, *tensors), expected)
    assert_close(dynamic(*tensors), expected)


def test_the_scales_may_be_variables():
    x, gamma, beta, dy = (tf.constant(array) for array in inputs(24))
    variables = tf.Variable(gamma), tf.Variable(beta)
    with tf.GradientTape() as tape:
        y = by_batch(x, *variables)
    found = tape.gradient(y, variables, dy)
    assert_close(
        [y, *found],
        [t for i, t in enumerate(with_gradients(by_batch, x, gamma, beta, dy)) if i != 1],
    )


def test_sizes_known_only_in_the_graph_take_one_trace(dynamic):
    for channels in CHANNELS:
        dynamic(*(tf.constant(a) for a in inputs(channels)))
    assert dynamic.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("channels", CHANNELS)
def test_moments_and_given_statistics(channels):
    x, gamma, beta, _ = inputs(channels)
    mean, variance = fused_batch_norm.moments(tf.constant(x))
    exact = x.astype(np.float64)
    assert_close([mean, variance], [exact.mean((0, 1, 2)), exact.var((0, 1, 2))])
    found = fused_batch_norm.normalize(tf.constant(x), beta, gamma, gamma, beta, EPSILON)
    expected = (exact - beta) / np.sqrt(gamma.astype(np.float64) + EPSILON) * gamma + beta
    assert_close([found], [expected])


def test_a_single_value_per_channel_has_no_variance():
    for channels in CHANNELS:
        x = tf.constant(inputs(channels)[0][:1, :1, :1])
        mean, variance = fused_batch_norm.moments(x)
        np.testing.assert_array_equal(mean, x[0, 0, 0])
        np.testing.assert_array_equal(variance, np.zeros(channels))
