"""Elastic layers: their contract as layers, slices against NumPy, masks against slices."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_testing import run_layer_test

from bignas_tf.layers import (
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
)
from bignas_tf.ops import GlobalPool
from bignas_tf.primitives import apply_weightless

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(2, 7, 6, 8))
CONV = {"max_in_channels": 8, "max_channels": 12, "max_kernel_size": 5}
DEPTHWISE = {"max_channels": 8, "max_kernel_size": 7}


def built(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Gives every weight a random value."""
    layer.build()
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return layer


def widened(x: np.ndarray, channels: int) -> np.ndarray:
    """`x` with zeros beyond its channels."""
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, channels - x.shape[-1])])


def stock(layer: keras.layers.Layer, weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Output of a stock layer with these weights."""
    layer.build(x.shape)
    layer.set_weights(weights)
    return np.asarray(layer(x))


CASES = {
    "convolution": (
        ElasticConv2D,
        {**CONV, "strides": 2, "use_bias": True},
        MAPS,
        (2, 4, 3, 10),
        {"kernel": (5, 5, 8, 12), "bias": (12,)},
        {"channels": 10, "kernel_size": 3},
    ),
    "dilated convolution": (
        ElasticConv2D,
        {**CONV, "dilation": 2},
        MAPS[..., :3],
        (2, 7, 6, 12),
        {"kernel": (5, 5, 8, 12)},
        {},
    ),
    "masked convolution": (
        ElasticConv2D,
        CONV,
        MAPS,
        (2, 7, 6, 12),
        {"kernel": (5, 5, 8, 12)},
        {"channels": 10, "kernel_size": 3, "masked": True},
    ),
    "depthwise": (
        ElasticDepthwiseConv2D,
        {**DEPTHWISE, "strides": 2},
        MAPS[..., :5],
        (2, 4, 3, 5),
        {"kernel": (7, 7, 8, 1)},
        {"kernel_size": 5},
    ),
    "dense": (
        ElasticDense,
        {"max_in_channels": 8, "max_channels": 4},
        MAPS[:, 0, 0, :6],
        (2, 3),
        {"kernel": (8, 4), "bias": (4,)},
        {"channels": 3},
    ),
    "dense without bias": (
        ElasticDense,
        {"max_in_channels": 8, "max_channels": 4, "use_bias": False},
        MAPS[:, 0, 0],
        (2, 4),
        {"kernel": (8, 4)},
        {},
    ),
    "batch norm": (
        ElasticBatchNormalization,
        {"max_channels": 8, "epsilon": 1e-2, "zero_gamma": True},
        MAPS[..., :5],
        (2, 7, 6, 5),
        {"gamma": (8,), "beta": (8,)},
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_elastic_layer_is_a_well_behaved_layer(case):
    layer_class, arguments, inputs, shape, weights, call = CASES[case]
    run_layer_test(layer_class, arguments, inputs, shape, weights, **call)


@pytest.mark.parametrize("size", [4, 6, 7, 9])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_convolutions_use_first_channels_and_the_centre_of_the_kernel(size, strides, kernel_size):
    x = np.random.default_rng(2).normal(size=(2, size, size, 6))
    start = (5 - kernel_size) // 2
    centre = slice(start, start + kernel_size)
    shared = {"strides": strides, "padding": "same", "dtype": "float64"}

    layer = built(ElasticConv2D(**CONV, strides=strides, use_bias=True, dtype="float64"))
    kernel, bias = layer.get_weights()
    expected = stock(
        keras.layers.Conv2D(9, kernel_size, **shared), [kernel[centre, centre, :6, :9], bias[:9]], x
    )
    actual = layer(x, channels=9, kernel_size=kernel_size)
    np.testing.assert_allclose(actual, expected, atol=1e-12)

    layer = built(ElasticDepthwiseConv2D(8, 5, strides=strides, dtype="float64"))
    (kernel,) = layer.get_weights()
    expected = stock(
        keras.layers.DepthwiseConv2D(kernel_size, use_bias=False, **shared),
        [kernel[centre, centre, :6]],
        x,
    )
    np.testing.assert_allclose(layer(x, kernel_size=kernel_size), expected, atol=1e-12)


def test_a_dense_layer_uses_its_first_rows_and_columns():
    layer = built(ElasticDense(8, 5, dtype="float64"))
    kernel, bias = layer.get_weights()
    x = MAPS[:, 0, 0, :6]
    np.testing.assert_allclose(layer(x, channels=3), x @ kernel[:6, :3] + bias[:3], atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_is_its_formula_over_the_batch(dtype):
    layer = built(ElasticBatchNormalization(8, epsilon=1e-2, dtype=dtype))
    gamma, beta = (weight[:5] for weight in layer.get_weights())
    x = MAPS[..., :5]
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(variance + 1e-2) * gamma + beta
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(layer(x.astype(dtype)), expected, atol=tolerance)


MASKED = {
    "convolution": (lambda: ElasticConv2D(**CONV, use_bias=True, dtype="float64"), 12),
    "strided": (lambda: ElasticConv2D(**CONV, strides=2, dtype="float64"), 12),
    "depthwise": (lambda: ElasticDepthwiseConv2D(8, 5, strides=2, dtype="float64"), 8),
    "dense": (lambda: ElasticDense(8, 12, dtype="float64"), 12),
    "batch norm": (lambda: ElasticBatchNormalization(8, dtype="float64"), 8),
}


@pytest.mark.parametrize("case", MASKED)
@pytest.mark.parametrize("kind", ["int", "tensor"])
def test_masked_equals_sliced_and_is_zero_beyond(case, kind):
    make, width = MASKED[case]
    layer = built(make())
    x = MAPS[..., :6] if case != "dense" else MAPS[:, 0, 0, :6]
    channels = {"depthwise": 6, "batch norm": 6}.get(case, 9)
    sizes = {} if case == "depthwise" else {"channels": channels}
    if case in ("convolution", "strided", "depthwise"):
        sizes["kernel_size"] = 3
    sliced = np.asarray(layer(x, **sizes))
    if kind == "tensor":
        sizes = {name: tf.constant(size, tf.int32) for name, size in sizes.items()}
        np.testing.assert_array_equal(layer(x, **sizes), sliced)
    masked = np.asarray(layer(widened(x, 8), masked=True, **sizes))
    assert masked.shape[-1] == width
    np.testing.assert_allclose(masked[..., :channels], sliced, atol=1e-12)
    np.testing.assert_array_equal(masked[..., channels:], 0)


@pytest.mark.parametrize("masked", [False, True])
def test_a_kernel_part_ignores_what_lies_outside(masked):
    layer = built(ElasticConv2D(**CONV, dtype="float64"))
    inside = np.zeros(layer.kernel.shape, bool)
    inside[1:4, 1:4, :6, :9] = True
    part = np.asarray(layer.kernel_part(6, 9, 3, masked))
    kernel = layer.get_weights()[0]
    expected = np.where(inside, kernel, 0) if masked else kernel[1:4, 1:4, :6, :9]
    np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("layer_class", [ElasticConv2D, ElasticDepthwiseConv2D])
def test_an_even_largest_kernel_is_refused(layer_class):
    arguments = {**(CONV if layer_class is ElasticConv2D else DEPTHWISE), "max_kernel_size": 4}
    with pytest.raises(ValueError, match=r"`max_kernel_size` must be odd\. Received: 4"):
        layer_class(**arguments)


@pytest.mark.parametrize("layer_class", [ElasticConv2D, ElasticDepthwiseConv2D])
def test_kernel_sizes_that_the_weights_do_not_contain_are_refused(layer_class):
    arguments = {**(CONV if layer_class is ElasticConv2D else DEPTHWISE), "max_kernel_size": 5}
    layer = layer_class(**arguments)
    x = MAPS.astype("float32")
    for bad in (0, 2, 4, 7, -1):
        with pytest.raises(ValueError, match=rf"`kernel_size` must be odd .*5\. Received: {bad}\b"):
            layer(x, kernel_size=bad)
    assert layer(x, kernel_size=1).shape[:3] == x.shape[:3]
    strided = layer_class(**arguments, strides=2)
    with pytest.raises(ValueError, match=r"`kernel_size` must not be 1 .*Received: 1\b"):
        strided(x, kernel_size=1)
    assert layer_class(**{**arguments, "max_kernel_size": 1}, strides=2)(x).shape[1:3] == (4, 3)


@pytest.mark.parametrize(
    ("layer_class", "arguments", "rank"),
    [
        (ElasticConv2D, CONV, 4),
        (ElasticDepthwiseConv2D, DEPTHWISE, 4),
        (ElasticDense, {"max_in_channels": 8, "max_channels": 12}, 2),
        (ElasticBatchNormalization, {"max_channels": 8}, 4),
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused(layer_class, arguments, rank):
    layer = layer_class(**arguments)

    def inputs(channels):
        return np.zeros((2, *(5 for _ in range(rank - 2)), channels), "float32")

    with pytest.raises(ValueError, match=r"`inputs` must be at most 8 channels wide.*Received: 9"):
        layer(inputs(9))
    with pytest.raises(ValueError, match="`inputs` must be 8 channels wide.*Received: 7"):
        layer(inputs(7), masked=True)
    if layer_class is not ElasticDepthwiseConv2D:  # whose channels are those of its inputs
        for bad in (0, -1, 13):
            with pytest.raises(ValueError, match=rf"`channels` must be 1 to .*Received: {bad}\b"):
                layer(inputs(8), channels=bad)
    for name in arguments:
        with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1"):
            layer_class(**{**arguments, name: "8"})


@pytest.mark.parametrize("zero_gamma", [False, True])
def test_gamma_starts_at_zero_or_one(zero_gamma):
    layer = ElasticBatchNormalization(3, zero_gamma=zero_gamma)
    layer.build()
    np.testing.assert_array_equal(layer.gamma, np.full(3, 0.0 if zero_gamma else 1.0))
    np.testing.assert_array_equal(layer.beta, np.zeros(3))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_half_precision_holds_the_mean_of_a_large_map(dtype, tolerance):
    x = np.random.default_rng(0).uniform(2, 4, (1, 160, 160, 3))
    op = GlobalPool(name="pool", inputs=("input",), in_channels=3, channels=3)
    mean = apply_weightless(op, tf.cast(x, dtype))
    assert mean.dtype == dtype
    np.testing.assert_allclose(tf.cast(mean, "float64"), x.mean((1, 2)), rtol=tolerance)
