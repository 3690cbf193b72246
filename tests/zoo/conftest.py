"""Models of the zoo, each built once for all tests of this folder that only look at it."""

import functools

import pytest

from bignas_tf import zoo


@pytest.fixture(scope="session")
def built():
    """Builds a preset's model as it is by default, with weights if it has any."""

    @functools.cache
    def build(name):
        weights = "cifar10" if name in zoo.list_models(weights="cifar10") else None
        return zoo.get_model(name, weights=weights)[0]

    return build
