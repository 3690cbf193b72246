"""From the name of a model, or its file, to a converted file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.deploy.formats import TFLITE, Export, check_format, check_place, export
from bignas_tf.deploy.preprocessing import BYTES, in_range, placed, range_inside, range_of
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.deploy.sidecar import read_sidecar, sidecar_path
from bignas_tf.deploy.tflite import Conversion, convert
from bignas_tf.deploy.verification_images import real_images

# What the JSON of a preset's file says too.
_PUBLISHED = (
    "space", "genotype", "spec", "resolution", "macs", "params", "input_range", "image_size",
    "interpolation", "labels",
)  # fmt: skip
_VERIFIED = 32  # images: enough for a share of agreement, seconds on a CPU
_CALIBRATED = 100  # images: ranges of activations settle before that


def preset_of(name: str | os.PathLike[str]) -> str | None:
    """The preset of the zoo that a model's name means, in any case; None for a file's name."""
    if Path(name).suffix:
        return None
    preset = os.fspath(name).lower()
    return preset if preset in _presets() else None


def _presets() -> tuple[str, ...]:
    with captured_stderr():  # the zoo loads Keras, and TensorFlow greets at length
        from bignas_tf.zoo.presets import list_models
    return list_models()


def load_model(name: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Loads a `.keras` file, or builds a preset of the zoo that gives logits.

    Args:
        name: path of a `.keras` file, or of `bignas_tf.zoo.list_models()` in any case.

    Returns:
        `(model, metadata)`. The metadata of a file is the JSON of the same stem
        beside it, empty if there is none; `input_range` is added where a leading
        `Rescaling` layer tells it. That of a preset has under `weights` what its weights
        were trained on, None for random ones.

    Raises:
        ValueError: if it is neither, or the file cannot be read.
    """
    preset = preset_of(name)
    if preset:
        return _preset(preset)
    path = Path(name)
    if path.suffix != ".keras":
        # For the name of a file nobody waits until the zoo is loaded.
        allowed = "a model of the zoo by name" if path.suffix else f"one of {', '.join(_presets())}"
        raise ValueError(f"`model` must be a .keras file or {allowed}. Received: {name}")
    if not zipfile.is_zipfile(path):
        problem = "is not a Keras file" if path.exists() else "does not exist"
        raise ValueError(f"the `model` file {problem}. Received: {path}")
    metadata = read_sidecar(path)
    with captured_stderr():  # TensorFlow greets at length
        import keras

        try:
            model = keras.models.load_model(path, compile=False)
            inside = {"input_range": list(BYTES)} if range_inside(model) else {}
            return model, inside | metadata
        except (ValueError, TypeError, KeyError, OSError) as error:
            failure = error
    reason = str(failure).strip().split("\n")[0]
    raise ValueError(f"Keras cannot load `model` ({reason}). Received: {path}") from failure


def _preset(name: str) -> tuple[Any, dict[str, Any]]:
    with captured_stderr():
        from bignas_tf.zoo import models
        from bignas_tf.zoo.presets import get_preset, get_spec
        from bignas_tf.zoo.trained import weights_of

        weights = next(iter(weights_of(name)), None)
        model = models.build_model(
            name,
            include_top=True,
            weights=weights,
            input_tensor=None,
            input_shape=None,
            pooling=None,
            classes=get_spec(name).classes,
            # Logits: an int8 softmax has steps of 1/256, and all of an untrained network's 1000
            # probabilities are smaller.
            classifier_activation=None,
            include_preprocessing=True,
            name=name,
        )
    preset = get_preset(name)
    known = {key: preset[key] for key in _PUBLISHED if key in preset}
    return model, {"preset": name, **known, "weights": weights, "scores": "logits"}


def convert_model(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str = TFLITE,
    quantization: Quantization | str = Quantization.FLOAT32,
    io: str | None = None,
    preprocessing: str | None = None,
    images: str | os.PathLike[str] | None = None,
    input_range: Sequence[float] | None = None,
    overwrite: bool = False,
    verbose: bool = False,
) -> Conversion | Export:
    """Converts a model by name, checked and calibrated on real images.

    Args:
        model: a `.keras` file, or a preset of the zoo, as of `load_model`.
        output: the file to write, for a SavedModel the folder.
        format: one of `bignas_tf.deploy.formats.FORMATS`.
        quantization: a `Quantization` or its value; TFLite only.
        io: type of input and output, see `bignas_tf.deploy.tflite.convert`.
        preprocessing: `"inside"` or `"outside"`, see
            `bignas_tf.deploy.preprocessing.placed`; None leaves it where it is.
        images: folder of images to calibrate and verify with, not the
            same ones; images that come with scikit-learn by default.
        input_range: the model's values of black and white; by default
            `input_range` of its metadata (`load_model`), else (-1, 1).
        overwrite: bool, whether an existing output may be replaced.
        verbose: bool, prints the steps.

    Returns:
        The file's figures.

    Raises:
        ValueError: if an argument is wrong, or LiteRT cannot run the file (TFLiteFileError).
        OSError: if the output exists (FileExistsError) or cannot be written.
        ModuleNotFoundError: if no images are given and scikit-learn is missing, or for ONNX its
            packages.
        ConversionError: if the converter fails.
        VerificationError: if the file does not compute what the model computes, or batch norm
            is not folded.
    """
    kind = Quantization.parse(quantization)
    check_format(format, kind, io)
    check_place(Path(output), format, overwrite)  # before the seconds that loading takes
    network, metadata = load_model(model)
    if input_range is not None:
        metadata = {**metadata, "input_range": list(range_of({"input_range": input_range}))}
    before = range_of(metadata)
    network, metadata = placed(network, metadata, preprocessing)
    if range_of(metadata) != before:
        _check_own_sidecar(model, output)
    calibrated = SCHEMES[kind].calibrated
    verification, calibration = _images(network, range_of(metadata), calibrated, images)
    arguments: dict[str, Any] = {
        "verification_images": verification,
        "metadata": metadata,
        "labels": metadata.get("labels"),
        "overwrite": overwrite,
    }
    if format != TFLITE:
        return export(network, output, format, **arguments)
    return convert(
        network,
        output,
        quantization=kind,
        calibration_images=calibration,
        io=io,
        verbose=verbose,
        **arguments,
    )


def _check_own_sidecar(model: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Keeps the JSON that describes the model from describing its converted file instead."""
    source = Path(model).with_suffix(".json")
    shared = sidecar_path(output).resolve() == source.resolve()
    if Path(model).suffix == ".keras" and shared:
        raise ValueError(
            f"`output` must have another name where the preprocessing changes: {source.name} "
            f"describes the model too. Received: {output}"
        )


def _images(
    network: Any,
    input_range: tuple[float, float],
    calibrated: bool,
    folder: str | os.PathLike[str] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Images to verify with and others to calibrate with."""
    pictures = real_images(
        tuple(network.inputs[0].shape[1:]),
        count=_VERIFIED + (_CALIBRATED if calibrated else 0),
        input_range=input_range if input_range != BYTES else (-1.0, 1.0),
        folder=folder,
    )
    if input_range == BYTES:
        pictures = in_range(pictures, input_range)
    # Judged on images that the ranges were not set with.
    return _split(pictures) if calibrated and len(pictures) > 1 else (pictures, pictures)


def _split(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every fourth image, and the others."""
    chosen = np.arange(len(images)) % 4 == 0
    return images[chosen], images[~chosen]
