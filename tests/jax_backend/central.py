"""The central test under JAX in float64: every mode equals the extracted child.

Prints one JSON object: the largest differences over some genotypes of a space, in units of
the logits' (or the gradients') largest value.

KERAS_BACKEND=jax JAX_ENABLE_X64=1 python tests/jax_backend/central.py SPACE GENOTYPES GRADIENTS
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import keras
import numpy as np
from supernets import SPACES, ends_and_samples, noise, randomized

from bignas_tf.extract import extract
from bignas_tf.spaces import get_space
from bignas_tf.spaces.sizes import size_table


def difference(actual, expected) -> float:
    expected = np.asarray(expected)
    assert np.ptp(expected) > 0  # noqa: S101 - constant outputs would agree too easily
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())


def main(name: str, count: int, gradients: int) -> dict[str, float]:
    space = SPACES[name]() if name in SPACES else dataclasses.replace(get_space(name), dropout=0.0)
    supernet = randomized(space)
    variables = list(supernet.variables_by_path().values())
    weights = [variable.value for variable in variables]
    assert weights[0].dtype == "float64"  # noqa: S101

    def logits(weights, images, *, genotype=None, table=None):
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            if genotype is not None:
                return supernet.run(images, genotype)
            return supernet.run_table(images, table, "masked")

    def total(weights, images, **child):
        found = logits(weights, images, **child)
        return (found * np.arange(found.size).reshape(found.shape)).sum()

    masked = jax.jit(lambda w, images, table: logits(w, images, table=table))
    masked_gradient = jax.jit(jax.grad(lambda w, images, table: total(w, images, table=table)))
    found = {"static": 0.0, "masked": 0.0, "gradients": 0.0}
    genotypes = ends_and_samples(space, count - 2)
    for number, genotype in enumerate(genotypes):
        images, table = noise(genotype), size_table(genotype)
        child = extract(supernet, genotype)
        expected = child(images, training=True)  # batch statistics on both sides
        static = jax.jit(functools.partial(logits, genotype=genotype))
        found["static"] = max(found["static"], difference(static(weights, images), expected))
        actual = masked(weights, images, table)
        found["masked"] = max(found["masked"], difference(actual, expected))
        if number < gradients:
            static_gradient = jax.jit(jax.grad(functools.partial(total, genotype=genotype)))
            both = (masked_gradient(weights, images, table), static_gradient(weights, images))
            scale = max(float(np.abs(g).max()) for g in both[1])
            differences = [float(np.abs(a - b).max()) for a, b in zip(*both, strict=True)]
            found["gradients"] = max(found["gradients"], max(differences) / scale)
    return {"genotypes": len(genotypes), **found}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
