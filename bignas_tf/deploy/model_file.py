"""From the name of a model, or its file, to a TFLite file."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.deploy.tflite import Conversion, convert
from bignas_tf.deploy.verification_images import real_images
from bignas_tf.files import check_output

PRESETS = {f"bignasmodel_{size}": f"BigNASModel{size.upper()}" for size in ("s", "m", "l", "xl")}

BYTES = (0.0, 255.0)  # black and white of images that a model preprocesses itself
_UNIT = 1.01  # 255 times a rounded 1/255 is not quite 1

_VERIFIED = 32  # images: enough for a share of agreement, seconds on a CPU
_CALIBRATED = 100  # images: ranges of activations settle before that


def load_model(name: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Loads a `.keras` file, or builds a preset with random weights that gives logits.

    Args:
        name: path of a `.keras` file, or a key of `PRESETS` in any case.

    Returns:
        `(model, metadata)`. The metadata of a file is the JSON of the same stem
        beside it, empty if there is none; `input_range` is added where a leading
        `Rescaling` layer tells it.

    Raises:
        ValueError: if it is neither, or the file cannot be read.
    """
    preset = PRESETS.get(os.fspath(name).lower())
    if preset:
        return _preset(preset)
    path = Path(name)
    if path.suffix != ".keras":
        allowed = ", ".join(PRESETS)
        raise ValueError(f"`model` must be a .keras file or one of {allowed}. Received: {name}")
    if not zipfile.is_zipfile(path):
        problem = "is not a Keras file" if path.exists() else "does not exist"
        raise ValueError(f"the `model` file {problem}. Received: {path}")
    metadata = read_sidecar(path)
    with captured_stderr():  # TensorFlow greets at length
        import keras

        try:
            model = keras.models.load_model(path, compile=False)
            return model, _preprocessing(model) | metadata
        except (ValueError, TypeError, KeyError, OSError) as error:
            failure = error
    reason = str(failure).strip().split("\n")[0]
    raise ValueError(f"Keras cannot load `model` ({reason}). Received: {path}") from failure


def _preset(name: str) -> tuple[Any, dict[str, Any]]:
    with captured_stderr():
        from bignas_tf import zoo
        from bignas_tf.cost import count

        # Logits: an int8 softmax has steps of 1/256, and all of an untrained network's 1000
        # probabilities are smaller.
        model = getattr(zoo, name)(weights=None, classifier_activation=None)
    spec = model.spec.with_input_shape(tuple(model.inputs[0].shape[1:]))
    cost = count(spec)
    return model, {
        "preset": name,
        "weights": None,
        "classifier_activation": None,
        "input_range": list(BYTES),
        "spec": spec.to_json(),
        "macs": cost.macs,
        "params": cost.params,
    }


def _preprocessing(model: Any) -> dict[str, Any]:
    """The input range of a model that first brings bytes to [-1, 1] or [0, 1] itself."""
    import keras

    layers = (layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer))
    first = next(layers, None)
    if not isinstance(first, keras.layers.Rescaling):
        return {}
    ends = [np.multiply(value, first.scale) + first.offset for value in BYTES]
    return {"input_range": list(BYTES)} if np.max(np.abs(ends)) < _UNIT else {}


def read_sidecar(path: Path) -> dict[str, Any]:
    """Reads the JSON of the same stem beside a model's file, empty if there is none.

    Raises:
        ValueError: if it is no JSON object.
    """
    sibling = path.with_suffix(".json")
    if not sibling.exists():
        return {}
    try:
        metadata = json.loads(sibling.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"the JSON beside `model` is broken ({error}). Received: {sibling}"
        ) from error
    if not isinstance(metadata, dict):
        raise ValueError(f"the JSON beside `model` must be an object. Received: {sibling}")
    return metadata


def convert_model(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    quantization: Quantization | str = Quantization.FLOAT32,
    images: str | os.PathLike[str] | None = None,
    input_range: Sequence[float] | None = None,
    overwrite: bool = False,
    verbose: bool = False,
) -> Conversion:
    """Converts a model by name, checked and calibrated on real images.

    Args:
        model: a `.keras` file, or a key of `PRESETS` in any case (random weights).
        output: the `.tflite` file to write.
        quantization: a `Quantization` or its value.
        images: folder of images to calibrate and verify with, not the
            same ones; images that come with scikit-learn by default.
        input_range: the model's values of black and white; by default
            `input_range` of its metadata (`load_model`), else (-1, 1).
        overwrite: bool, whether an existing output may be replaced.
        verbose: bool, prints the steps.

    Returns:
        The file's figures.

    Raises:
        ValueError: if an argument is wrong or the file fails its verification.
        OSError: if the output exists or cannot be written.
        ModuleNotFoundError: if no images are given and scikit-learn is missing.
        ConversionError: if TensorFlow's converter fails.
    """
    kind = Quantization.parse(quantization)
    check_output(Path(output), overwrite)  # before the seconds that loading takes
    network, metadata = load_model(model)
    low, high = range_of(metadata if input_range is None else {"input_range": input_range})
    shape = tuple(network.inputs[0].shape[1:])
    calibrated = SCHEMES[kind].calibrated
    verification = calibration = real_images(
        shape,
        count=_VERIFIED + (_CALIBRATED if calibrated else 0),
        input_range=(low, high),
        folder=images,
    )
    if calibrated and len(verification) > 1:
        # Judged on images that the ranges were not set with.
        verification, calibration = _split(verification)
    return convert(
        network,
        output,
        quantization=kind,
        calibration_images=calibration,
        verification_images=verification,
        metadata={**metadata, "input_range": [low, high]},
        labels=metadata.get("labels"),
        overwrite=overwrite,
        verbose=verbose,
    )


def _split(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every fourth image, and the others."""
    chosen = np.arange(len(images)) % 4 == 0
    return images[chosen], images[~chosen]


def range_of(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """A model's values of black and white, (-1, 1) if its metadata do not tell.

    Raises:
        ValueError: if they are not two numbers.
    """
    values = metadata.get("input_range", (-1.0, 1.0))
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"`input_range` must be two numbers. Received: {values!r}") from None
    return low, high
