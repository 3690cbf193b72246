import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def make_model():
    def make(shape=(24, 24, 3), classes=10, seed=0):
        import keras

        layers = keras.layers
        inputs = keras.Input(shape)
        x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("swish")(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Activation("swish")(layers.Conv2D(4, 1)(gate))
        gate = layers.Activation("sigmoid")(layers.Conv2D(16, 1)(gate))
        x = layers.Multiply()([x, gate])
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("swish")(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(classes)(x))
        # No weight may stay at an initial 0 or 1: a forgotten term would not show. Small offsets
        # leave the outputs to the image.
        ranges = {"kernel": (-1.0, 1.0), "gamma": (1.0, 2.0), "moving_variance": (0.5, 1.5)}
        random = np.random.default_rng(seed)
        for variable in model.weights:
            low, high = ranges.get(variable.name, (-0.1, 0.1))
            variable.assign(random.uniform(low, high, variable.shape))
        return model

    return make


@pytest.fixture(scope="session")
def model(make_model):
    return make_model()


@pytest.fixture(scope="session")
def photographs():
    from bignas_tf.deploy.verification_images import real_images

    return real_images((24, 24, 3), count=24)


@pytest.fixture(scope="session")
def float_file(model, photographs, tmp_path_factory):
    from bignas_tf.deploy.tflite import convert

    path = tmp_path_factory.mktemp("float") / "model.tflite"
    convert(model, path, verification_images=photographs)
    return path


@pytest.fixture
def converted_before(float_file, monkeypatch):
    """Gives the converter's work of `float_file` to whoever converts `model` again."""
    from bignas_tf.deploy import tflite

    monkeypatch.setattr(tflite, "flatbuffer", lambda *arguments: float_file.read_bytes())


@pytest.fixture(scope="session")
def script():
    def run(name, *arguments):
        return subprocess.run(  # noqa: S603 - our own scripts
            [sys.executable, ROOT / "export" / f"{name}.py", *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=120,
        )

    return run
