"""ONNX files: written by tf2onnx in a process of its own, run by ONNX Runtime."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.deploy.conversion.converter import ConversionError
from bignas_tf.deploy.conversion.saved_model import SIGNATURE, write_saved_model
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.optional import require_package

OPSET = 18  # ONNX Runtime reads it since 1.14


def require_onnx() -> None:
    """Requires the packages of the extra `onnx`.

    Raises:
        ModuleNotFoundError: naming the first that is missing, and the way to install it.
    """
    for package in ("tf2onnx", "onnxruntime"):
        require_package(package, "onnx", "An ONNX file")


def write_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Converts a Keras model to ONNX, by way of a SavedModel.

    tf2onnx patches TensorFlow and NumPy and logs at length, so it gets its own process. The
    file takes `images`, `(batch, height, width, channels)`, any batch, and gives `scores`.
    What tf2onnx leaves of batch norm behind depthwise convolutions, ONNX Runtime folds.

    Args:
        model: functional Keras model with one float32 input and one output.
        path: the `.onnx` file to write.

    Raises:
        ModuleNotFoundError: if tf2onnx or ONNX Runtime is not installed.
        ConversionError: if tf2onnx fails, with its last words.
    """
    require_onnx()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        with captured_stderr():
            write_saved_model(model, folder)
        command = [
            *(sys.executable, "-m", "tf2onnx.convert"),
            *("--saved-model", folder, "--signature_def", SIGNATURE),
            *("--opset", str(OPSET), "--output", os.fspath(raw)),
        ]
        done = subprocess.run(  # noqa: S603 - our own interpreter, no shell
            command,
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )
        if done.returncode or not raw.is_file():
            words = done.stderr.strip().splitlines() or ["no output"]
            raise ConversionError(f"tf2onnx cannot convert `model`: {words[-1]}")
        _write_folded(raw, Path(path))


def _write_folded(raw: Path, path: Path) -> None:
    """Writes a file with constant products and sums in kernels and biases.

    Those are ONNX Runtime's basic optimizations, whose result is plain ONNX for any runtime.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = os.fspath(path)
    onnxruntime.InferenceSession(os.fspath(raw), options, providers=["CPUExecutionProvider"])
    model = onnx.load(path)
    # It lists every set of operators that it knows.
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    onnx.save(model, path)


def onnx_operators(path: str | os.PathLike[str]) -> dict[str, int]:
    """The operators of an ONNX file: name -> how many, the most frequent first."""
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return dict(collections.Counter(node.op_type for node in nodes).most_common())


def open_onnx(
    path: str | os.PathLike[str],
) -> tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]:
    """Checks an ONNX file against its standard and loads it.

    Args:
        path: an `.onnx` file with one float32 input and one output.

    Returns:
        The shape of an image, and a function from `(batch, height, width, channels)` to
        `(batch, ...)`.

    Raises:
        ModuleNotFoundError: if tf2onnx or ONNX Runtime is not installed.
        ValueError: if it is no valid ONNX file, or has other inputs or outputs.
    """
    require_onnx()
    import onnx
    import onnxruntime

    if not Path(path).is_file():
        raise ValueError(f"the `model` file does not exist. Received: {path}")
    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
        session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # each of the two packages has its own kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"`model` must be a valid ONNX file ({reason}). Received: {path}"
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "the ONNX file must have one input and one output. "
            f"Received: {len(inputs)} inputs, {len(outputs)} outputs"
        )
    name = inputs[0].name
    return tuple(inputs[0].shape[1:]), lambda images: session.run(None, {name: images})[0]
