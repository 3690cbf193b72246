"""A model of the zoo in a clean process with another of Keras's backends.

All presets are compared by benchmarks/backends.py.
"""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCRIPT = """
import json, sys
import keras, numpy
# JAX compiles for a second per shape what initial kernels come from; the files' replace them.
keras.initializers.VarianceScaling.__call__ = lambda _, shape, dtype: numpy.zeros(shape, dtype)
folder = sys.argv[1]
saved = keras.models.load_model(f"{folder}/model.keras")
numpy.save(f"{folder}/outputs.npy", saved.predict_on_batch(numpy.load(f"{folder}/images.npy")))
before = set(sys.modules)
from bignas_tf.zoo import BigNASCifarS
loaded = sorted(set(sys.modules) - before)
weights = zip(BigNASCifarS(weights="cifar10").weights, saved.weights, strict=True)
print(json.dumps({
    "backend": keras.backend.backend(),
    "ours_before": [name for name in before if name.startswith("bignas_tf")],
    "loaded": loaded,
    "same_weights": all(a.path == b.path and numpy.array_equal(a, b) for a, b in weights),
}))
"""


@pytest.fixture(scope="module", params=["jax", "torch"])
def clean_process(request, built, tmp_path_factory):
    """Outputs here, of the saved model in a process with another backend, and what that said."""
    backend = request.param
    if importlib.util.find_spec(backend) is None:  # importing it here would take seconds
        pytest.skip(f"{backend} is not installed")
    folder, model = tmp_path_factory.mktemp(backend), built("bignascifar_s")
    model.save(folder / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, (4, 24, 24, 3)).astype("float32")
    np.save(folder / "images.npy", images)
    environment = {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    run = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", SCRIPT, folder],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    said = json.loads(run.stdout.strip().splitlines()[-1])
    assert said["backend"] == backend
    return np.array(model(images)), np.load(folder / "outputs.npy"), said


@pytest.mark.slow
def test_a_saved_model_needs_nothing_of_this_package_and_runs_under_another_backend(clean_process):
    expected, outputs, said = clean_process
    assert said["ours_before"] == []
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert np.ptp(expected, axis=1).min() > 0.1  # and not the same for every class


def test_a_model_is_built_with_its_weights_under_another_backend(clean_process):
    assert clean_process[2]["same_weights"]


def test_importing_the_zoo_loads_nothing_beyond_keras_and_this_package(clean_process):
    loaded = clean_process[2]["loaded"]
    assert {name.split(".")[0] for name in loaded} == {"bignas_tf"}
    assert "bignas_tf.spaces" not in loaded
