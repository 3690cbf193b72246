"""One way to run a finished model, whatever its format."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.deploy.preprocessing import OUTSIDE, placed
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.sidecar import read_sidecar

_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Runner:
    """A model that was loaded from a file.

    Attributes:
        path: of the file, or of a SavedModel's folder.
        shape: `(height, width, channels)` of an image.
        metadata: what the JSON beside it says.
        run: from float32 images `(batch, height, width, channels)`, preprocessed as the
            model expects them, to `(batch, ...)`, dequantized.
    """

    path: Path
    shape: tuple[int, ...]
    metadata: dict[str, Any]
    run: Callable[[np.ndarray], np.ndarray]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Runs images in batches.

        Args:
            images: `(images, height, width, channels)`.

        Returns:
            `(images, ...)`, float32.

        Raises:
            ValueError: if `images` are of another size, or none.
        """
        if images.shape[1:] != self.shape or not len(images):
            raise ValueError(
                f"`images` must be one or more of shape {self.shape}. Received: {images.shape}"
            )
        outputs = [
            np.asarray(self.run(images[start : start + _BATCH].astype(np.float32)), np.float32)
            for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate(outputs)


def open_model(path: str | os.PathLike[str]) -> Runner:
    """Loads a `.tflite`, `.keras` or `.onnx` file, a SavedModel or a preset with weights.

    Args:
        path: the file, the folder of a SavedModel, or a preset of the zoo by name.

    Raises:
        ValueError: if it is none of them, or damaged, or a preset without weights.
        ModuleNotFoundError: for an ONNX file, if tf2onnx or ONNX Runtime is not installed.
    """
    from bignas_tf.deploy.model_file import preset_of

    path = Path(path)
    preset = None if path.exists() else preset_of(path)
    if preset:
        _require_weights(preset)
        # As it was trained and its figures measured, on pixels that are no whole numbers.
        return _keras(path, OUTSIDE)
    if path.suffix == ".keras":
        return _keras(path)
    if path.suffix == ".tflite":
        shape, run = _tflite(path)
    elif path.suffix == ".onnx":
        from bignas_tf.deploy.conversion.onnx_file import open_onnx

        shape, run = open_onnx(path)
    elif path.is_dir():
        from bignas_tf.deploy.conversion.saved_model import open_saved_model

        shape, run = open_saved_model(path)
    else:
        raise ValueError(
            "`model` must be a .keras file or a .tflite file, an .onnx file or the folder of a "
            f"SavedModel, or a preset of the zoo with weights. Received: {path}"
        )
    return Runner(path, shape, read_sidecar(path), run)


def _require_weights(preset: str) -> None:
    from bignas_tf.zoo.presets import list_models
    from bignas_tf.zoo.trained import weights_of

    trained = ", ".join(name for name in list_models() if weights_of(name)) or "none yet"
    if not weights_of(preset):
        raise ValueError(
            "`model` must be a file, or a preset that somebody has trained "
            f"({trained}): this one has no weights. Received: {preset}"
        )


def _keras(path: Path, preprocessing: str | None = None) -> Runner:
    from bignas_tf.deploy.model_file import load_model

    model, metadata = load_model(path)
    if preprocessing:
        model, metadata = placed(model, metadata, preprocessing)

    def run(images: np.ndarray) -> np.ndarray:
        return model.predict_on_batch(images)

    return Runner(path, tuple(model.inputs[0].shape[1:]), metadata, run)


def _tflite(path: Path) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
    from bignas_tf.deploy.interpreter import (
        input_and_output,
        load_interpreter,
        predict,
        require_survival,
    )

    require_survival(path)  # what it dies of would end this process without a word
    with captured_stderr():  # XNNPACK announces itself
        # One thread: networks for phones are too small for more at one image a time.
        interpreter = load_interpreter(path)
    shape = input_and_output(interpreter)[0].shape[1:]
    return shape, lambda images: predict(interpreter, images)
