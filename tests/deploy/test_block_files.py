"""How large files are."""

from __future__ import annotations

import numpy as np
import pytest
from random_models import random_model

from bignas_tf.deploy.conversion.converter import flatbuffer
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.file_size import QUANTIZATIONS, file_size_mb
from bignas_tf.spaces import get_space


@pytest.mark.parametrize(
    ("name", "drawn", "quantizations"),
    [
        ("digits", 0, ["float32", "int8"]),
        pytest.param("digits", 2, QUANTIZATIONS, marks=pytest.mark.long),
        pytest.param("cifar", 2, QUANTIZATIONS, marks=pytest.mark.long),
    ],
)
def test_the_predicted_sizes_of_children_are_within_two_percent(name, drawn, quantizations):
    space = get_space(name)
    genotypes = [space.smallest(), space.biggest(), *space.sample(drawn, seed=3)]
    rng = np.random.Generator(np.random.Philox(0))
    for genotype in genotypes[: drawn + 2 if drawn else 1]:
        model = random_model(genotype.spec())
        images = rng.standard_normal((4, *genotype.spec().input_shape), np.float32)
        for quantization in quantizations:
            scheme = SCHEMES[Quantization(quantization)]
            size = len(flatbuffer(model, scheme, images if scheme.calibrated else None)) / 1e6
            assert file_size_mb(genotype.spec(), quantization) == pytest.approx(size, rel=0.02)
