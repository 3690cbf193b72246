"""SavedModels with one named signature: a format of its own, and tf2onnx's way in."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_tf.deploy.quiet import captured_stderr

SIGNATURE, INPUT, OUTPUT = "serve", "images", "scores"


def write_saved_model(model: Any, folder: str | os.PathLike[str]) -> None:
    """Writes a Keras model's inference as a SavedModel.

    Its signature `serve` takes `images`, `(batch, height, width, channels)` in float32, and
    gives `scores`.

    Args:
        model: functional Keras model with one float32 input and one output.
        folder: a folder that is empty or does not exist.
    """
    import keras
    import tensorflow as tf

    shape = (None, *model.inputs[0].shape[1:])
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        name=SIGNATURE,
        fn=lambda images: {OUTPUT: model(images, training=False)},
        input_signature=[tf.TensorSpec(shape, tf.float32, name=INPUT)],
    )
    archive.write_out(os.fspath(folder), verbose=False)


def open_saved_model(
    folder: str | os.PathLike[str],
) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
    """Loads what `write_saved_model` wrote.

    Args:
        folder: of the SavedModel.

    Returns:
        The shape of an image, and a function from `(batch, height, width, channels)` to
        `(batch, ...)`.

    Raises:
        ValueError: if it is none, or has no such signature.
    """
    failure: Exception | None = None
    with captured_stderr():
        import tensorflow as tf

        try:
            loaded = tf.saved_model.load(os.fspath(folder))
            signature = loaded.signatures[SIGNATURE]
            given = signature.structured_input_signature[1]
            shape = tuple(given[INPUT].shape[1:])
            signature.structured_outputs[OUTPUT]  # noqa: B018 - whether it is there
        except (OSError, KeyError, ValueError) as error:
            failure = error
    if failure is not None:
        raise ValueError(
            f"`model` must be a SavedModel with a signature '{SIGNATURE}' from '{INPUT}' to "
            f"'{OUTPUT}' ({str(failure).splitlines()[0]}). Received: {folder}"
        ) from failure

    def run(images: np.ndarray) -> np.ndarray:
        # `loaded` owns the variables that the signature reads.
        return loaded.signatures[SIGNATURE](images=tf.constant(images))[OUTPUT].numpy()

    return shape, run
