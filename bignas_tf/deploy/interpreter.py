"""Running TFLite files with LiteRT."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

DELEGATE = "DELEGATE"  # LiteRT's name for an operator that stands for a part of the graph
_IDENTIFIER = b"TFL3"  # the flatbuffer's file identifier, bytes 4 to 8
_TRIAL = """
import sys
from ai_edge_litert.interpreter import Interpreter
try:
    interpreter = Interpreter(model_path=sys.argv[1])
    interpreter.allocate_tensors()
    interpreter.invoke()
except (ValueError, RuntimeError) as error:
    sys.exit(str(error).strip().split("\\n")[0])
"""


class TFLiteFileError(ValueError):
    """The file is not a TFLite model that can be run here."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a TFLite file.

    Attributes:
        shape: tuple of ints, the batch included.
        dtype: str, for example `"int8"`.
        scale: float, `real = scale * (stored - zero_point)`; 0.0 for a float tensor.
        zero_point: int.
    """

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    def stored(self, real: np.ndarray) -> np.ndarray:
        """Quantizes, if the tensor is quantized."""
        if not self.scale:
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps = np.round(real / self.scale) + self.zero_point
        return np.clip(steps, limits.min, limits.max).astype(self.dtype)

    def real(self, stored: np.ndarray) -> np.ndarray:
        """Dequantizes to float32, if the tensor is quantized."""
        if not self.scale:
            return stored.astype(np.float32)
        return ((stored.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


def load_interpreter(
    path: str | os.PathLike[str], threads: int = 1, *, delegate: str = "xnnpack"
) -> Any:
    """Opens a TFLite file and allocates its tensors.

    Args:
        path: a `.tflite` file.
        threads: int, at least 1.
        delegate: `"xnnpack"` or `"none"` (LiteRT's own kernels).

    Returns:
        An `ai_edge_litert.interpreter.Interpreter`.

    Raises:
        TFLiteFileError: if the file is missing, empty or not a TFLite model.
        ValueError: if `threads` or `delegate` is not allowed.
    """
    if threads < 1:
        raise ValueError(f"`threads` must be at least 1. Received: {threads}")
    if delegate not in ("xnnpack", "none"):
        raise ValueError(f"`delegate` must be 'xnnpack' or 'none'. Received: {delegate!r}")
    _check_file(Path(path))
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = {
        "xnnpack": OpResolverType.AUTO,
        "none": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    }[delegate]
    try:
        interpreter = Interpreter(
            model_path=os.fspath(path),
            num_threads=threads,
            experimental_op_resolver_type=resolver,
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise TFLiteFileError(f"LiteRT cannot run the file ({reason}). Received: {path}") from error
    return interpreter


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise TFLiteFileError(f"no such TFLite file. Received: {path}")
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise TFLiteFileError(f"the TFLite file is empty. Received: {path}")
    if head[4:8] != _IDENTIFIER:
        raise TFLiteFileError(f"not a TFLite file (no 'TFL3' at byte 4). Received: {path}")


def require_survival(path: str | os.PathLike[str], seconds: float = 300.0) -> None:
    """Runs a TFLite file once in a process of its own.

    LiteRT aborts the process on some files that its converter writes.

    Args:
        path: a `.tflite` file.
        seconds: float, how long it may take; the largest networks take a few.

    Raises:
        TFLiteFileError: if the file is missing, empty or not a TFLite model, or that process
            dies, with its last words, or does not end in time.
    """
    _check_file(Path(path))
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
            [sys.executable, "-c", _TRIAL, os.fspath(path)],
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise TFLiteFileError(
            f"LiteRT does not get through the file in {seconds:g} s. Received: {path}"
        ) from None
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no output"]
        refused, status = done.returncode == 1, f"ends with status {done.returncode} on"
        raise TFLiteFileError(
            f"LiteRT {'cannot run' if refused else status} the file ({words[-1]}). Received: {path}"
        )


def input_and_output(interpreter: Any) -> tuple[Tensor, Tensor]:
    """Describes the one input and the one output.

    Args:
        interpreter: from `load_interpreter`.

    Returns:
        `(input, output)`.

    Raises:
        TFLiteFileError: if there are several inputs or outputs.
    """
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise TFLiteFileError(
            "the file must have one input and one output. "
            f"Received: {len(inputs)} inputs, {len(outputs)} outputs"
        )
    return _tensor(inputs[0]), _tensor(outputs[0])


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    return Tensor(
        shape=tuple(int(size) for size in details["shape"]),
        dtype=np.dtype(details["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )


def delegated_parts(interpreter: Any) -> int:
    """How many parts of the graph a delegate took; each seam between parts costs time.

    Args:
        interpreter: from `load_interpreter`.
    """
    return sum(details["op_name"] == DELEGATE for details in interpreter._get_ops_details())


def predict(path_or_interpreter: Any, images: np.ndarray) -> np.ndarray:
    """Runs images one by one.

    Args:
        path_or_interpreter: a `.tflite` file, or what `load_interpreter` returned.
        images: `(images, height, width, channels)`, float, preprocessed as the
            Keras model expects them; quantized here if the file asks for it.

    Returns:
        `(images, ...)`, float32, dequantized.

    Raises:
        TFLiteFileError: if the file cannot be run.
        ValueError: if `images` does not fit the file's input.
    """
    interpreter = path_or_interpreter
    if isinstance(interpreter, str | os.PathLike):
        interpreter = load_interpreter(interpreter)
    source, target = input_and_output(interpreter)
    images = np.asarray(images)
    if source.shape[0] != 1 or images.shape[1:] != source.shape[1:] or not len(images):
        raise ValueError(
            f"`images` must be one or more of shape {source.shape[1:]}, for a file of batch 1 "
            f"(this one has {source.shape[0]}). Received: {images.shape}"
        )
    source_index = interpreter.get_input_details()[0]["index"]
    target_index = interpreter.get_output_details()[0]["index"]
    outputs = []
    for image in images:
        interpreter.set_tensor(source_index, source.stored(image[None]))
        interpreter.invoke()
        outputs.append(target.real(interpreter.get_tensor(target_index))[0])
    return np.stack(outputs)
