"""The published spaces at full width and depth, on small images: one answer as well."""

import dataclasses
import functools

import numpy as np
import pytest
from supernets import MODES, assert_agrees, noise, randomized

from bignas_tf.extract import extract
from bignas_tf.spaces import Genotype, get_space
from bignas_tf.supernet import Supernet

pytestmark = pytest.mark.slow  # tests/test_supernet.py does the same in small spaces

NAMES = ("bignas", "attentivenas")
BATCH = 3


@functools.cache
def supernet_of(name: str) -> Supernet:
    small = {"resolution_choices": (33, 40), "training_resolutions": ()}
    return randomized(dataclasses.replace(get_space(name), dropout=0.0, **small))


def genotypes(name: str) -> list[Genotype]:
    """The smallest at the bigger resolution, one between, the biggest at the smaller."""
    space = supernet_of(name).space
    between = space.sample(1, seed=4)
    return [space.smallest().replace(resolution=40), *between, space.biggest()]


@functools.cache
def static(name: str) -> list[np.ndarray]:
    supernet = supernet_of(name)
    return [supernet.run(noise(g, batch=BATCH), g).numpy() for g in genotypes(name)]


@pytest.mark.parametrize("name", NAMES)
def test_the_extracted_child_equals_static_mode(name):
    genotype, expected = genotypes(name)[1], static(name)[1]
    child = extract(supernet_of(name), genotype)
    assert_agrees(child(noise(genotype, batch=BATCH), training=True), expected, 1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES[1:])
def test_every_mode_equals_static_mode(name, mode):
    for genotype, expected in zip(genotypes(name), static(name), strict=True):
        actual = supernet_of(name).run(noise(genotype, batch=BATCH), genotype, mode)
        assert_agrees(actual, expected, 1e-9)
