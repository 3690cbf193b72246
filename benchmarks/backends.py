r"""The zoo's models under each of Keras's backends: how far their outputs are from TensorFlow's.

    pip install '.[jax,torch]'
    python benchmarks/backends.py --json=backends.json

Every model is built under every backend, each in a process of its own, with the same weights:
those of the package, or random ones with batch statistics. A difference is that of the
logits of random images, as a fraction of the largest logit. Ends with status 1 if one exceeds
the tolerance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", ["jax", "torch"], "Backends of Keras to compare with TensorFlow.")
flags.DEFINE_list("models", [], "Names of presets; all of them by default.")
flags.DEFINE_integer("images", 2, "Images of each model's own size.", lower_bound=1)
flags.DEFINE_float("tolerance", 5e-5, "Largest difference, as a fraction of the largest logit.")
flags.DEFINE_string("json", None, "File for the result.")
flags.DEFINE_string("folder", None, "Of a process for one backend: where it finds the weights.")

REFERENCE = "tensorflow"


def randomize(model: Any, images: np.ndarray, rng: np.random.Generator) -> None:
    """Gives every batch norm other numbers than a new layer's, its statistics those of `images`.

    With random statistics the signals of deep networks grow so much that float32 and float64
    differ by a thousandth in one and the same backend.
    """
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.1, layer.beta.shape))
            layer.momentum = 0.0
    model(images, training=True)


def run_models(folder: Path, names: list[str]) -> None:
    """Writes the logits of every model under this process's backend."""
    import keras

    from bignas_tf import zoo

    backend = keras.backend.backend()
    if backend != REFERENCE:
        # JAX compiles initial kernels, a second per shape; the files replace them.
        keras.initializers.VarianceScaling.__call__ = lambda _, shape, dtype: np.zeros(shape, dtype)
    for name in names:
        path = folder / f"{name}.weights.h5"
        own = next(iter(zoo.get_preset(name)["weights"] or ()), None)
        weights = own if backend == REFERENCE else path
        model, _ = zoo.get_model(name, weights=weights, classifier_activation=None)
        shape = (FLAGS.images, *model.input_shape[1:])
        images = np.random.default_rng(1).uniform(0, 255, shape).astype("float32")
        if backend == REFERENCE:
            if own is None:
                randomize(model, images, np.random.default_rng(0))
            model.save_weights(path)
        np.save(folder / f"{name}.{backend}.npy", model.predict_on_batch(images))
        keras.backend.clear_session()


def run_backend(backend: str, folder: Path, names: list[str]) -> None:
    """Runs all models in a process with that backend."""
    arguments = [f"--folder={folder}", f"--models={','.join(names)}", f"--images={FLAGS.images}"]
    subprocess.run(  # noqa: S603 - this script
        [sys.executable, __file__, *arguments],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
    )


def differences(folder: Path, names: list[str], backend: str) -> dict[str, float]:
    """Largest difference of each model's logits, as a fraction of the largest logit."""
    found = {}
    for name in names:
        expected, logits = (np.load(folder / f"{name}.{b}.npy") for b in (REFERENCE, backend))
        found[name] = float(np.abs(logits - expected).max() / np.abs(expected).max())
    return found


def main(argv: list[str]) -> None:
    """Compares, or is one of the processes that are compared."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    if FLAGS.folder:
        run_models(Path(FLAGS.folder), FLAGS.models)
        return
    from bignas_tf.files import check_output
    from bignas_tf.zoo.presets import list_models

    if FLAGS.json:
        check_output(Path(FLAGS.json), overwrite=True)
    names = FLAGS.models or list(list_models())
    with tempfile.TemporaryDirectory() as folder:
        for backend in (REFERENCE, *FLAGS.backends):
            run_backend(backend, Path(folder), names)
        result = {b: differences(Path(folder), names, b) for b in FLAGS.backends}
    for name in names:
        print(f"{name:18}", *(f"{backend} {result[backend][name]:.1e}" for backend in result))
    if FLAGS.json:
        Path(FLAGS.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    worst = max(value for found in result.values() for value in found.values())
    print(f"largest {worst:.1e}")
    if worst > FLAGS.tolerance:
        sys.exit(f"a difference exceeds {FLAGS.tolerance:g}")


if __name__ == "__main__":
    app.run(main)
