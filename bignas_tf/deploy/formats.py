"""Keras model to other formats than TFLite: written, run on real images, described in a JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.checks import require, require_choice
from bignas_tf.deploy.conversion.folding_check import check_folding, spec_of
from bignas_tf.deploy.conversion.onnx_file import OPSET, onnx_operators, require_onnx, write_onnx
from bignas_tf.deploy.conversion.saved_model import INPUT, OUTPUT, SIGNATURE, write_saved_model
from bignas_tf.deploy.preprocessing import INSIDE, leading_rescaling
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.runner import open_model
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.deploy.sidecar import check_sidecar, described, sidecar_path, versions
from bignas_tf.deploy.verification import (
    Verification,
    checked_images,
    compare,
    input_shape,
    keras_outputs,
    require_keras_3,
)
from bignas_tf.files import (
    check_output,
    remove_remains,
    replace_folder,
    restore_folder,
    staging_folder,
)

TFLITE, SAVED_MODEL, ONNX, KERAS = FORMATS = ("tflite", "saved_model", "onnx", "keras")
# All of them hold the same float32 network.
_TOLERANCE = SCHEMES[Quantization.FLOAT32].tolerance


@dataclasses.dataclass(frozen=True)
class _Format:
    """A way to write a model, and what the sidecar says of it."""

    suffix: str
    write: Callable[[Any, Path], None]
    facts: Mapping[str, Any]


def _save_keras(model: Any, path: Path) -> None:
    model.save(path)


def _save_folder(model: Any, path: Path) -> None:
    with captured_stderr():
        write_saved_model(model, path)


_SIGNATURE = {"signature": SIGNATURE, "input_name": INPUT, "output_name": OUTPUT}
_WRITTEN: Mapping[str, _Format] = {
    SAVED_MODEL: _Format("", _save_folder, _SIGNATURE),
    ONNX: _Format(".onnx", write_onnx, {"opset": OPSET, **_SIGNATURE}),
    KERAS: _Format(".keras", _save_keras, {}),
}


@dataclasses.dataclass(frozen=True)
class Export:
    """A file, or a SavedModel's folder, that passed its verification.

    Attributes:
        path: the file or folder.
        sidecar: the JSON that describes it.
        format: one of `FORMATS`.
        bytes: int, of all its files.
        sha256: str, hexadecimal hash of the file; of a folder, of its files' names and
            contents in the order of the names, the JSON left out.
        verification: how it compares with the Keras model.
        operators: of an ONNX file, name -> how many; None of other formats.
        folding: of an ONNX file, as of `bignas_tf.deploy.tflite.Conversion`.
        seconds: float, writing and verification.
    """

    path: Path
    sidecar: Path
    format: str
    bytes: int
    sha256: str
    verification: Verification
    operators: dict[str, int] | None
    folding: dict[str, dict[str, int]] | None
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        folded = "batch norm folded" if self.folding else "folding of batch norm not checked"
        count = sum((self.operators or {}).values())
        return (
            f"{self.path}: {self.format}, {self.bytes / 1e6:.2f} MB, "
            f"{self.verification.summary()}; "
            + (f"{count} operators, {folded}; " if self.operators else "")
            + f"{self.seconds:.0f} s"
        )

    def warning(self) -> str | None:
        """None: what runs the file decides what it costs."""
        return None


def check_format(format: str, quantization: Quantization | str, io: str | None) -> None:
    """Requires a format, and no quantization but in a TFLite file.

    Raises:
        ValueError: naming the argument.
    """
    require_choice("format", format, FORMATS)
    kind = Quantization.parse(quantization)
    if format == TFLITE:
        SCHEMES[kind].interface(io)
        return
    plain = kind is Quantization.FLOAT32
    require(plain, "quantization", f"float32 for format {format}", kind.value)
    require(io is None, "io", f"left out for format {format}", io)


def default_name(
    stem: str,
    format: str,
    quantization: Quantization = Quantization.FLOAT32,
    io: str | None = None,
    preprocessing: str | None = None,
) -> str:
    """What the export of a child is called: `s.tflite`, `s_int8_uint8_inside.tflite`.

    The name says what differs from a float32 file of -1 to 1: the quantization, an input
    and output that are not the quantization's default, preprocessing inside.

    Args:
        stem: the child's name.
        format: one of `FORMATS`.
        quantization: of a TFLite file.
        io: as of `bignas_tf.deploy.tflite.convert`.
        preprocessing: as of `bignas_tf.deploy.preprocessing.placed`.
    """
    words = [stem]
    if quantization is not Quantization.FLOAT32:
        words.append(quantization.value)
    if io not in (None, SCHEMES[quantization].interface(None)):
        words.append(str(io))
    if preprocessing == INSIDE:
        words.append(INSIDE)
    if format == SAVED_MODEL:
        words.append(SAVED_MODEL)
    return "_".join(words) + _suffix(format)


def _suffix(format: str) -> str:
    return ".tflite" if format == TFLITE else _WRITTEN[format].suffix


def export(
    model: Any,
    output: str | os.PathLike[str],
    format: str,
    *,
    verification_images: np.ndarray,
    metadata: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Export:
    """Writes a Keras model in another format and checks that against the model.

    A SavedModel has the signature `serve` from `images` to `scores`; an ONNX file has those
    names too. Nothing is left of an export that fails.

    Args:
        model: functional Keras model of stock layers: one float32 input of static
            shape `(None, height, width, channels)`, one output.
        output: the file to write, or the folder of a SavedModel, in a folder that exists.
        format: `"saved_model"`, `"onnx"` or `"keras"`.
        verification_images: `(images, height, width, channels)`, float, preprocessed as
            the model expects them; real images, not noise.
        metadata: JSON-serializable description for the sidecar; the export's own keys win.
        labels: names of the classes, for the sidecar.
        overwrite: bool, whether an existing output may be replaced.

    Returns:
        The figures, which are in the sidecar too.

    Raises:
        ValueError: if an argument is not of the described form.
        OSError: if the output exists (FileExistsError) or cannot be written.
        ModuleNotFoundError: for ONNX, if tf2onnx or ONNX Runtime is not installed.
        ConversionError: if tf2onnx fails.
        VerificationError: if the file does not compute what the model computes, or batch norm
            of an ONNX file is not folded.
    """
    started = time.perf_counter()
    require_choice("format", format, tuple(_WRITTEN))
    require_keras_3(model)
    images = checked_images("verification_images", verification_images, input_shape(model))
    content = described(model, metadata, labels)
    output = Path(output)
    sidecar = sidecar_path(output)
    check_place(output, format, overwrite)
    if format != SAVED_MODEL:  # whose JSON is in its folder
        check_sidecar(sidecar, content, overwrite)
    if format == ONNX:
        require_onnx()
    remove_remains(output)
    reference = keras_outputs(model, images)
    # Under its own name, which loaders go by, and beside the output, to be moved there.
    with staging_folder(output) as folder:
        written = folder / output.name
        _WRITTEN[format].write(model, written)
        outputs = open_model(written).predict(images)
        what = f"the {format} export"
        export = Export(
            path=output,
            sidecar=sidecar,
            format=format,
            **_size_and_hash(written),
            verification=compare(reference, outputs, _TOLERANCE, what),
            **_operators(written, format, model, content),
            seconds=time.perf_counter() - started,
        )
        new_sidecar = sidecar_path(written)
        new_sidecar.parent.mkdir(exist_ok=True)
        content |= _figures(export)
        new_sidecar.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if format == SAVED_MODEL:
            replace_folder(written, output)
        else:
            os.replace(new_sidecar, sidecar)  # first, as of TFLite
            os.replace(written, output)
    return export


def check_place(output: Path, format: str, overwrite: bool) -> None:
    """Refuses, before the work is done, an output that could not be written after it.

    A SavedModel that a killed export had moved out of the way is put back first.

    Args:
        output: the file, or the folder of a SavedModel.
        format: one of `FORMATS`.
        overwrite: bool, whether an existing one may be replaced.

    Raises:
        ValueError: for a suffix that is not the format's.
        OSError: if `output` exists (FileExistsError) or cannot be written.
    """
    suffix = _suffix(format)
    expected = f"a name ending in {suffix}" if suffix else "a folder's name without a suffix"
    require(output.suffix == suffix, "output", expected, str(output))
    if format == SAVED_MODEL:
        restore_folder(output)
    if format != SAVED_MODEL or not output.is_dir():
        check_output(output, overwrite)
    elif not overwrite:
        raise FileExistsError(
            f"the output exists already; set `overwrite` to replace it. Received: {output}"
        )
    elif not (output / "saved_model.pb").is_file():
        raise FileExistsError(
            f"the output is a folder and no SavedModel, so it is not replaced. Received: {output}"
        )


def check_pair(output: Path, format: str, overwrite: bool) -> None:
    """As `check_place`, for the output and its JSON.

    Raises:
        OSError: if one of them exists (FileExistsError) or cannot be written.
    """
    check_place(output, format, overwrite)
    if format != SAVED_MODEL:  # whose JSON is in its folder
        check_output(sidecar_path(output), overwrite)


def _size_and_hash(path: Path) -> dict[str, Any]:
    if path.is_file():
        content = path.read_bytes()
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    total, digest = 0, hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        content = file.read_bytes()
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + content)
        total += len(content)
    return {"bytes": total, "sha256": digest.hexdigest()}


def _operators(path: Path, format: str, model: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Operators of an ONNX file, and whether batch norm is folded where the ops are known."""
    if format != ONNX:
        return {"operators": None, "folding": None}
    operators, spec = onnx_operators(path), spec_of(model, metadata)
    folding = None
    if spec is not None:
        rescaled = leading_rescaling(model) is not None
        folding = check_folding(operators, spec, rescaled=rescaled, onnx=True)
    return {"operators": operators, "folding": folding}


def _figures(export: Export) -> dict[str, Any]:
    return {
        "format": export.format,
        "bytes": export.bytes,
        "sha256": export.sha256,
        **_WRITTEN[export.format].facts,
        "verification": {
            **dataclasses.asdict(export.verification),
            "tolerance": dataclasses.asdict(_TOLERANCE),
        },
        **({"operators": export.operators, "folding": export.folding} if export.operators else {}),
        "versions": versions(),
    }
