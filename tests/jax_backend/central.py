"""The central test under JAX in float64: every mode equals the extracted child.

The extracted child runs under TensorFlow: several stock layers of Keras take means in float32
under JAX, whatever their dtype. Prints one JSON object: the largest differences over some
genotypes of a space, in units of the largest logit, and of masked from static gradients.

KERAS_BACKEND=jax JAX_ENABLE_X64=1 python tests/jax_backend/central.py SPACE GENOTYPES GRADIENTS
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
from supernets import SPACES, ends_and_samples, noise, randomized

from bignas_tf.extract import extract
from bignas_tf.spaces import Genotype, MBConvSpace, get_space
from bignas_tf.spaces.sizes import size_table


def the_space(name: str) -> MBConvSpace:
    return SPACES[name]() if name in SPACES else dataclasses.replace(get_space(name), dropout=0.0)


def difference(actual, expected) -> float:
    assert np.ptp(expected) > 0  # noqa: S101 - constant outputs would agree too easily
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())


def save_children(name: str, count: int, path: str) -> None:
    """Logits of the extracted children, on batch statistics."""
    supernet = randomized(the_space(name))
    logits = []
    for genotype in ends_and_samples(supernet.space, count - 2):
        child = extract(supernet, genotype)
        logits.append(keras.ops.convert_to_numpy(child(noise(genotype), training=True)))
    np.savez(path, *logits)


def expected_logits(name: str, count: int) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "children.npz")
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        arguments = [sys.executable, __file__, name, str(count), path]
        subprocess.run(arguments, env=environment, check=True)  # noqa: S603
        with np.load(path) as file:
            return [file[key] for key in file.files]


class Functions:
    """Logits and gradients of a randomized supernet as compiled functions."""

    def __init__(self, space: MBConvSpace):
        import jax

        self.supernet = randomized(space)
        self._variables = list(self.supernet.variables_by_path().values())
        self.weights = [variable.value for variable in self._variables]
        assert self.weights[0].dtype == "float64"  # noqa: S101
        self._jit, self._grad = jax.jit, jax.grad
        self.masked = jax.jit(self._logits)
        self.masked_gradient = jax.jit(jax.grad(self._total))

    def static(self, genotype: Genotype):
        return self._jit(functools.partial(self._logits, genotype=genotype))

    def static_gradient(self, genotype: Genotype):
        return self._jit(self._grad(functools.partial(self._total, genotype=genotype)))

    def _logits(self, weights, images, table=None, genotype=None):
        mapping = list(zip(self._variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            if genotype is not None:
                return self.supernet.run(images, genotype)
            return self.supernet.run_table(images, table, "masked")

    def _total(self, *arguments, **child):
        found = self._logits(*arguments, **child)
        return (found * np.arange(found.size).reshape(found.shape)).sum()


def compare(name: str, count: int, gradients: int) -> dict[str, float]:
    expected = expected_logits(name, count)
    functions = Functions(the_space(name))
    found = {"static": 0.0, "masked": 0.0} | ({"gradients": 0.0} if gradients else {})
    genotypes = ends_and_samples(functions.supernet.space, count - 2)
    for number, (genotype, logits) in enumerate(zip(genotypes, expected, strict=True)):
        weights, images, table = functions.weights, noise(genotype), size_table(genotype)
        for mode, actual in (
            ("static", functions.static(genotype)(weights, images)),
            ("masked", functions.masked(weights, images, table)),
        ):
            found[mode] = max(found[mode], difference(actual, logits))
        if number < gradients:
            masked = functions.masked_gradient(weights, images, table)
            static = functions.static_gradient(genotype)(weights, images)
            scale = max(float(np.abs(g).max()) for g in static)
            differences = [np.abs(a - b).max() / scale for a, b in zip(masked, static, strict=True)]
            found["gradients"] = max(found["gradients"], float(max(differences)))
    return {"genotypes": len(genotypes), **found}


if __name__ == "__main__":
    if keras.backend.backend() == "tensorflow":
        save_children(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        print(json.dumps(compare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
