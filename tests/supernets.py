"""Spaces, supernets of random weights and comparisons that several tests share."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from bignas_tf.blocks import SqueezeExcitation
from bignas_tf.spaces import Genotype, MBConvSpace, Stage, get_space
from bignas_tf.spaces.sizes import size_table
from bignas_tf.supernet import Supernet

MODES = ("static", "sliced", "masked")
HIDDEN_SIGMOID = SqueezeExcitation(relative_to="expanded", activation="hard_sigmoid")
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


def kernels_space(**changes) -> MBConvSpace:
    """Kernels 3, 5 and 7 at both strides, and a shortcut convolution in every stage that
    vanishes at equal widths: between equal, growing and shrinking largest widths.
    """
    space = MBConvSpace(
        name="kernels",
        resolution_choices=(9, 12, 33),
        stem_widths=(4, 8),
        stages=(
            Stage((4, 8), (1, 2), (3, 5, 7), (1,), 1, SqueezeExcitation()),
            Stage((8, 16), (1, 2, 3), (3, 5, 7), (2, 3), 2),
            Stage((4, 8, 12), (1, 2), (5, 7), (2,), 1, SqueezeExcitation(divisor=4)),
        ),
        head_widths=(8, 16),
        classes=5,
        dropout=0.0,
    )
    return dataclasses.replace(space, **changes)


def attentive_space(**changes) -> MBConvSpace:
    """AttentiveNAS's kinds of blocks, three stages of them."""
    stages = get_space("attentivenas").stages
    chosen = (stages[0], dataclasses.replace(stages[2], depths=(1, 2, 3)), stages[6])
    changes = {"resolution_choices": (17, 20), "classes": 7, "dropout": 0.0, **changes}
    return dataclasses.replace(
        get_space("attentivenas"), name="attentive", stages=chosen, head_widths=(24, 32), **changes
    )


SPACES = {
    "digits": lambda: dataclasses.replace(get_space("digits"), dropout=0.0),
    "cifar": lambda: dataclasses.replace(get_space("cifar"), dropout=0.0),
    "kernels": kernels_space,
    "attentive": attentive_space,
    "relu6": lambda: kernels_space(name="relu6", activation="relu6"),
    # f(0) != 0: channels that a child does not have would not stay zero by themselves.
    "sigmoid": lambda: kernels_space(name="sigmoid", activation="sigmoid"),
    "hidden_sigmoid": lambda: kernels_space(
        name="hidden_sigmoid",
        stages=tuple(dataclasses.replace(s, se=HIDDEN_SIGMOID) for s in kernels_space().stages),
    ),
}


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """A value of its own for every weight, none at an initial 0 or 1.

    Kernels keep the scale of signals; gammas, betas and biases are far from neutral.
    """
    rng = np.random.default_rng(seed)
    weights = {}
    for path, shape in shapes.items():
        if path.endswith("/gamma"):
            weights[path] = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            weights[path] = rng.normal(0, 0.3, shape)
        else:
            fan_in = np.prod(shape[:2] if path.endswith("depthwise_conv/kernel") else shape[:-1])
            weights[path] = rng.normal(0, (2 / fan_in) ** 0.5, shape)
    return weights


def randomized(space: MBConvSpace, dtype: str = "float64", seed: int = 0) -> Supernet:
    """A supernet whose weights are all random, the same in every dtype."""
    supernet = Supernet(space, dtype=dtype)
    shapes = {path: tuple(v.shape) for path, v in supernet.variables_by_path().items()}
    supernet.assign(random_weights(shapes, seed))
    return supernet


@functools.cache
def shared(name: str, dtype: str = "float64") -> Supernet:
    """The randomized supernet of a space of `SPACES`; tests must not change it."""
    return randomized(SPACES[name](), dtype)


def noise(genotype: Genotype, batch: int = 4, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """Images at the genotype's resolution."""
    shape = genotype.spec().input_shape
    return np.random.default_rng(seed).uniform(-1, 1, (batch, *shape)).astype(dtype)


def ends_and_samples(space: MBConvSpace, count: int, seed: int = 0) -> list[Genotype]:
    """Smallest, biggest and `count` others."""
    return [space.smallest(), space.biggest(), *space.sample(count, seed)]


class SlicedGraph:
    """Sliced mode as one traced function; `traces` counts how often it was traced."""

    def __init__(self, supernet: Supernet):
        import tensorflow as tf  # other tests run without it, on another backend

        self.traces = 0
        channels = supernet.space.input_channels
        signature = [
            tf.TensorSpec((None, None, None, channels), supernet.compute_dtype),
            tf.TensorSpec((None, 4), tf.int32),
        ]

        def run(images, table):
            self.traces += 1
            return supernet.run_table(images, table, "sliced")

        self._run = tf.function(run, input_signature=signature, autograph=False)

    def __call__(self, images: np.ndarray, genotype: Genotype) -> Any:
        return self._run(images, size_table(genotype))


def assert_agrees(actual, expected, tolerance: float) -> None:
    """Compares to `tolerance` of the scale of `expected`, which must not be constant."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    assert np.ptp(expected) > 1e-2 * scale > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)
