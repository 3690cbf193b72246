"""Keras model to TFLite file: converted, run on real images, described in a JSON beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.deploy.converter import ConversionError, flatbuffer
from bignas_tf.deploy.interpreter import (
    Tensor,
    TFLiteFileError,
    input_and_output,
    load_interpreter,
    predict,
)
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.schemes import SCHEMES, Quantization, Scheme
from bignas_tf.deploy.verification import (
    Verification,
    VerificationError,
    compare,
    keras_outputs,
)
from bignas_tf.files import check_output, staged

__all__ = [
    "SCHEMES",
    "Conversion",
    "ConversionError",
    "Quantization",
    "Scheme",
    "TFLiteFileError",
    "VerificationError",
    "convert",
    "load_interpreter",
    "predict",
    "sidecar_path",
]

_PACKAGES = ("bignas-tf", "tensorflow", "keras", "ai-edge-litert")


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A TFLite file that passed its verification.

    Attributes:
        path: the `.tflite` file.
        sidecar: the JSON that describes it.
        quantization: what it stores and computes in.
        bytes: int, size of the file.
        sha256: str, hexadecimal hash of the file.
        input: shape, dtype and quantization of the input.
        output: the same of the output.
        verification: how it compares with the Keras model.
        seconds: float, conversion and verification.
    """

    path: Path
    sidecar: Path
    quantization: Quantization
    bytes: int
    sha256: str
    input: Tensor
    output: Tensor
    verification: Verification
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        figures = self.verification
        agreeing = round(figures.agreement * figures.images)
        doubt = "" if figures.telling else " (the outputs hardly depend on the image)"
        return (
            f"{self.path}: {self.quantization.value}, {self.bytes / 1e6:.2f} MB, "
            f"top class as in Keras on {agreeing} of {figures.images} images{doubt}, "
            f"largest difference {figures.max_difference:.2g} (mean "
            f"{figures.mean_difference:.2g}, scale {figures.scale:.2g}), {self.seconds:.0f} s"
        )


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """The JSON beside a TFLite file: `model.tflite` has `model.json`."""
    return Path(path).with_suffix(".json")


def convert(
    model: Any,
    output: str | os.PathLike[str],
    *,
    quantization: Quantization | str = Quantization.FLOAT32,
    calibration_images: np.ndarray | None = None,
    verification_images: np.ndarray,
    metadata: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
    verbose: bool = False,
) -> Conversion:
    """Converts a Keras model to TFLite and checks the file against the model.

    The file runs one image at a time. It is written under a temporary name and
    renamed after it has passed the check: a failing conversion leaves no file.

    Args:
        model: functional Keras model of stock layers: one float32 input of static
            shape `(None, height, width, channels)`, one output.
        output: the `.tflite` file to write, in a folder that exists.
        quantization: a `Quantization` or its value.
        calibration_images: `(images, height, width, channels)`, float, preprocessed
            as the model expects them. Needed for `int8`, ignored where nothing is
            calibrated.
        verification_images: same form; real images, not noise.
        metadata: JSON-serializable description for the sidecar (`spec`, `macs`,
            `params`, `input_range`, `genotype`, ...). The conversion's own keys win.
        labels: names of the classes, for the sidecar.
        overwrite: bool, whether an existing output may be replaced. A JSON whose
            content is all in `metadata` is extended without asking.
        verbose: bool, prints the steps.

    Returns:
        The file's figures, which are in the sidecar too.

    Raises:
        ValueError: if an argument is not of the described form.
        OSError: if the output exists (FileExistsError) or cannot be written.
        ConversionError: if TensorFlow's converter fails.
        VerificationError: if the file does not compute what the model computes.
    """
    started = time.perf_counter()
    kind = Quantization.parse(quantization)
    shape = _input_shape(model)
    images = _checked_images("verification_images", verification_images, shape)
    calibration = None
    if SCHEMES[kind].calibrated:
        calibration = _checked_images("calibration_images", calibration_images, shape)
    described = _described(model, metadata, labels)
    output, sidecar = Path(output), sidecar_path(output)
    _check_outputs(output, sidecar, described, overwrite)
    with staged(output, sidecar) as (temporary, temporary_sidecar):
        figures = _written(temporary, model, SCHEMES[kind], images, calibration, verbose)
        seconds = time.perf_counter() - started
        conversion = Conversion(output, sidecar, kind, **figures, seconds=seconds)
        described |= _sidecar_figures(conversion)
        temporary_sidecar.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return conversion


def _written(
    path: Path,
    model: Any,
    scheme: Scheme,
    images: np.ndarray,
    calibration: np.ndarray | None,
    verbose: bool,
) -> dict[str, Any]:
    """Writes the file, compares it with the model, and gives `Conversion`'s figures."""
    say = print if verbose else _silent
    say("running the Keras model")
    reference = keras_outputs(model, images)
    say("converting")
    content = flatbuffer(model, scheme, calibration)
    path.write_bytes(content)
    say(f"comparing the file with the Keras model on {len(images)} images")
    with captured_stderr():  # XNNPACK announces itself
        interpreter = load_interpreter(path)
        outputs = predict(interpreter, images)
    source, target = input_and_output(interpreter)
    return {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": source,
        "output": target,
        "verification": compare(reference, outputs, scheme.tolerance),
    }


def _silent(line: str) -> None:
    del line


def _input_shape(model: Any) -> tuple[int, int, int]:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "TFLite export needs Keras on TensorFlow (KERAS_BACKEND=tensorflow). "
            f"Received: {keras.backend.backend()!r}"
        )
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs or len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "`model` must be a functional Keras model with one input and one output. "
            f"Received: {model!r}"
        )
    shape, dtype = tuple(inputs[0].shape[1:]), keras.backend.standardize_dtype(inputs[0].dtype)
    if len(shape) != 3 or None in shape or dtype != "float32":
        raise ValueError(
            "`model` must take float32 images of static (height, width, channels). "
            f"Received: {shape}, {dtype}"
        )
    return shape


def _checked_images(name: str, images: Any, shape: tuple[int, int, int]) -> np.ndarray:
    if images is None:
        raise ValueError(f"`{name}` are needed here. Received: None")
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"`{name}` must be one or more images of shape {shape}. Received: {images.shape}"
        )
    # Integers are nearly always images that somebody forgot to bring to the model's range.
    if not np.issubdtype(images.dtype, np.floating) or not np.all(np.isfinite(images)):
        raise ValueError(f"`{name}` must be finite floats. Received: {images.dtype}")
    return images.astype(np.float32)


def _described(
    model: Any, metadata: Mapping[str, Any] | None, labels: Sequence[str] | None
) -> dict[str, Any]:
    """The caller's part of the sidecar, as it will be read back."""
    described = {**(metadata or {})}
    if labels is not None:
        classes = model.outputs[0].shape[-1]
        if isinstance(labels, str) or len(labels) != classes:
            raise ValueError(f"`labels` must be {classes} names. Received: {labels!r}")
        described["labels"] = list(labels)
    try:
        return json.loads(json.dumps(described, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`metadata` and `labels` must be JSON-serializable. Received: {error}"
        ) from error


def _check_outputs(
    output: Path, sidecar: Path, described: Mapping[str, Any], overwrite: bool
) -> None:
    if output.suffix != ".tflite":
        raise ValueError(f"`output` must end in .tflite. Received: {output}")
    check_output(output, overwrite)
    try:
        present = json.loads(sidecar.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        present = None
    # `bignas extract` describes child.keras in child.json, child.tflite's place too: whoever
    # passes all of that as metadata loses nothing.
    if not isinstance(present, dict) or not present.items() <= described.items():
        check_output(sidecar, overwrite)


def _sidecar_figures(conversion: Conversion) -> dict[str, Any]:
    return {
        "quantization": conversion.quantization.value,
        "bytes": conversion.bytes,
        "sha256": conversion.sha256,
        "input": dataclasses.asdict(conversion.input),
        "output": dataclasses.asdict(conversion.output),
        "verification": {
            **dataclasses.asdict(conversion.verification),
            "tolerance": dataclasses.asdict(SCHEMES[conversion.quantization].tolerance),
        },
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a checkout that is not installed
    return versions
