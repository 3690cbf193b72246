"""Even kernels in plain networks: built, counted and run as by their definition."""

import math

import finished_network
import numpy as np
import pytest

from bignas_tf.blocks import ConvBlock, HeadBlock, MBConvBlock
from bignas_tf.child import build_child
from bignas_tf.cost import count
from bignas_tf.evaluation import forward
from bignas_tf.spec import NetworkSpec


@pytest.mark.parametrize(("size", "pixels"), [(2, 9), (4, 10), (6, 7)])
def test_a_network_with_even_kernels_is_counted_and_computed_by_its_definition(size, pixels):
    spec = NetworkSpec(
        (pixels, pixels, 3),
        (
            ConvBlock(name="stem", channels=6, kernel_size=size, strides=2),
            MBConvBlock(name="a", channels=6, kernel_size=size, expand_ratio=1),
            MBConvBlock(name="b", channels=8, kernel_size=size, strides=2, expanded_channels=12),
            HeadBlock(name="head"),
        ),
        classes=4,
    )
    rng = np.random.default_rng(size)
    child = build_child(spec)
    for variable in child.variables:
        low = 0.5 if variable.name in ("gamma", "moving_variance") else -0.5
        variable.assign(rng.uniform(low, 1, variable.shape))
    weights = {variable.path: np.asarray(variable) for variable in child.variables}
    images = rng.uniform(-1, 1, (3, *spec.input_shape)).astype("float32")
    expected = finished_network.run(spec, weights, images.astype("float64"))["head_classifier"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(child(images), expected, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(forward(spec, weights, images), expected, rtol=0, atol=1e-5 * scale)

    half, quarter = math.ceil(pixels / 2) ** 2, math.ceil(math.ceil(pixels / 2) / 2) ** 2
    macs = half * size * size * 3 * 6  # stem
    macs += half * (size * size * 6 + 6 * 6)
    macs += half * 6 * 12 + quarter * (size * size * 12 + 12 * 8)
    assert count(spec).macs == macs + 8 * 4
