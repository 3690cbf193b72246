"""Keras model to TFLite file: converted, run on real images, described in a JSON beside it."""

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

from bignas_tf.deploy.conversion.converter import (
    ConversionError,
    MakeConverter,
    flatbuffer,
    through_constants,
)
from bignas_tf.deploy.conversion.folding_check import check_folding, spec_of
from bignas_tf.deploy.conversion.graph import Graph, read_graph
from bignas_tf.deploy.interpreter import (
    Tensor,
    TFLiteFileError,
    input_and_output,
    load_interpreter,
    predict,
    require_survival,
)
from bignas_tf.deploy.preprocessing import leading_rescaling
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.schemes import SCHEMES, Quantization, Scheme
from bignas_tf.deploy.sidecar import check_sidecar, described, sidecar_path, versions
from bignas_tf.deploy.verification import (
    Verification,
    VerificationError,
    checked_images,
    compare,
    input_shape,
    keras_outputs,
    require_keras_3,
)
from bignas_tf.files import check_output, remove_remains, staged

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
        graph: its operators, and which of them XNNPACK takes.
        folding: multiplications and additions, found and explained; None where nobody says
            of which ops the model consists.
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
    graph: Graph
    folding: dict[str, dict[str, int]] | None
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        folded = "batch norm folded" if self.folding else "folding of batch norm not checked"
        return (
            f"{self.path}: {self.quantization.value}, {self.bytes / 1e6:.2f} MB, "
            f"{self.verification.summary()}; {self.graph.summary()}, {folded}; "
            f"{self.seconds:.0f} s"
        )

    def warning(self) -> str | None:
        """What the quantization costs on a CPU, None if it is little."""
        return self.graph.warning()


def convert(
    model: Any,
    output: str | os.PathLike[str],
    *,
    quantization: Quantization | str = Quantization.FLOAT32,
    calibration_images: np.ndarray | None = None,
    verification_images: np.ndarray,
    metadata: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    io: str | None = None,
    make_converter: MakeConverter = through_constants,
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
            as the model expects them. Needed for int8 and int16x8, ignored where nothing
            is calibrated.
        verification_images: same form; real images, not noise.
        metadata: JSON-serializable description for the sidecar (`spec`, `macs`,
            `params`, `input_range`, `genotype`, ...). The conversion's own keys win.
            With a `spec`, here or as the model's attribute, the folding of batch norm is
            checked.
        labels: names of the classes, for the sidecar.
        io: type of input and output where the quantization offers several: `"int8"` or
            `"uint8"`.
        make_converter: opens TensorFlow's converter on a model that is not Keras 3's; needed
            for `qat_int8`.
        overwrite: bool, whether an existing output may be replaced. A JSON whose
            content is all in `metadata` is extended without asking.
        verbose: bool, prints the steps.

    Returns:
        The file's figures, which are in the sidecar too.

    Raises:
        ValueError: if an argument is not of the described form.
        OSError: if the output exists (FileExistsError) or cannot be written.
        ConversionError: if TensorFlow's converter fails.
        VerificationError: if the file does not compute what the model computes, or batch norm
            is not folded.
        TFLiteFileError: if LiteRT cannot run the file.
    """
    started = time.perf_counter()
    kind = Quantization.parse(quantization)
    scheme = SCHEMES[kind]
    scheme.interface(io)
    if scheme.trained and make_converter is through_constants:
        raise ValueError(
            f"`quantization` must be one that any model can have, or `make_converter` given "
            f"for a model with quantization nodes. Received: {kind.value!r}"
        )
    if make_converter is through_constants:
        require_keras_3(model)
    shape = input_shape(model)
    images = checked_images("verification_images", verification_images, shape)
    calibration = None
    if scheme.calibrated:
        calibration = checked_images("calibration_images", calibration_images, shape)
    content = described(model, metadata, labels)
    output, sidecar = Path(output), sidecar_path(output)
    if output.suffix != ".tflite":
        raise ValueError(f"`output` must end in .tflite. Received: {output}")
    check_output(output, overwrite)
    check_sidecar(sidecar, content, overwrite)
    for path in (output, sidecar):
        remove_remains(path)

    def converted() -> bytes:
        return flatbuffer(model, scheme, calibration, io, make_converter)

    # The JSON first: killed between the two renames, a file has one whose hash is not its own.
    with staged(sidecar, output) as (temporary_sidecar, temporary):
        figures = _written(temporary, model, scheme, images, converted, verbose)
        figures["folding"] = _folding(figures["graph"], model, content, scheme)
        seconds = time.perf_counter() - started
        conversion = Conversion(output, sidecar, kind, **figures, seconds=seconds)
        content |= _sidecar_figures(conversion)
        temporary_sidecar.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return conversion


def _written(
    path: Path,
    model: Any,
    scheme: Scheme,
    images: np.ndarray,
    converted: Callable[[], bytes],
    verbose: bool,
) -> dict[str, Any]:
    """Writes the file, compares it with the model, and gives `Conversion`'s figures."""
    say = print if verbose else _silent
    say("running the Keras model")
    reference = keras_outputs(model, images)
    say("converting")
    content = converted()
    path.write_bytes(content)
    say(f"comparing the file with the Keras model on {len(images)} images")
    require_survival(path)
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
        "graph": read_graph(interpreter),
    }


def _folding(
    graph: Graph, model: Any, metadata: Mapping[str, Any], scheme: Scheme
) -> dict[str, dict[str, int]] | None:
    spec = spec_of(model, metadata)
    if spec is None:
        return None
    rescaled = leading_rescaling(model) is not None
    return check_folding(graph.operators, spec, rescaled=rescaled, rounded=scheme.trained)


def _silent(line: str) -> None:
    del line


def _sidecar_figures(conversion: Conversion) -> dict[str, Any]:
    return {
        "format": "tflite",
        "quantization": conversion.quantization.value,
        "bytes": conversion.bytes,
        "sha256": conversion.sha256,
        "input": dataclasses.asdict(conversion.input),
        "output": dataclasses.asdict(conversion.output),
        "verification": {
            **dataclasses.asdict(conversion.verification),
            "tolerance": dataclasses.asdict(SCHEMES[conversion.quantization].tolerance),
        },
        "operators": conversion.graph.operators,
        "delegate": {
            "name": "xnnpack",
            "parts": conversion.graph.delegate_parts,
            "outside": conversion.graph.outside,
        },
        "folding": conversion.folding,
        "versions": versions(),
    }
