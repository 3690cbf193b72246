"""Converts children to TFLite, ONNX, SavedModels; checks each against its Keras model.

For a run: every extracted child, calibrated and checked on training images; one that fails is
named at the end, its file not kept, and the exit status is 1. Writes
NAME.tflite (NAME_int8.tflite, NAME_int8_uint8_inside.tflite, NAME.onnx, NAME_saved_model, ...)
and its JSON to the run's folder. For a single .keras file or zoo model: --output, see also
export/convert_tflite.py. docs/deploy.md says what each quantization is for, what a file is
called and what is checked.

Examples:
  bignas convert --workdir=runs/cifar10 --quantization=int8
  bignas convert --workdir=runs/cifar10 --quantization=int8 --io=uint8 --preprocessing=inside
  bignas convert --model=child.keras --images=photos --output=child.tflite
  bignas convert --model=child.keras --format=onnx --output=child.onnx
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.checks import require
from bignas_tf.commands.run_folder import require_one
from bignas_tf.deploy.formats import FORMATS, TFLITE
from bignas_tf.deploy.preprocessing import PREPROCESSING
from bignas_tf.deploy.schemes import POST_TRAINING

QUANTIZATIONS = tuple(kind.value for kind in POST_TRAINING)
VERIFIED, CALIBRATED = 64, 256  # images
_OF_A_MODEL = ("output", "images", "input_range")
_HANDED_ON = (
    "format", "quantization", "io", "preprocessing", "images", "input_range", "overwrite",
)  # fmt: skip


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", type=Path, help="folder of the run")
    parser.add_argument("--model", help="a .keras file or a zoo name such as bignasmodel_m instead")
    parser.add_argument("--output", type=Path, help="file to write, with --model")
    parser.add_argument(
        "--images",
        help="folder of images to check and calibrate with, with --model (default: some of "
        "scikit-learn's)",
    )
    parser.add_argument(
        "--input_range",
        type=lambda text: text.split(","),
        help="with --model: its values of black and white, for example 0,255 (default: what its "
        "JSON says, else -1,1)",
    )
    parser.add_argument("--data", help="source of --workdir, if it has moved since the training")
    parser.add_argument(
        "--format", default=TFLITE, choices=FORMATS, help="of the file (default: %(default)s)"
    )
    parser.add_argument(
        "--quantization",
        default="float32",
        choices=QUANTIZATIONS,
        help="of a TFLite file (default: %(default)s)",
    )
    parser.add_argument(
        "--io", choices=("int8", "uint8"), help="input and output of int8 (default: int8)"
    )
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSING,
        help="inside: the file takes pixels of 0 to 255; outside: -1 to 1 (default: as the model)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.deploy.formats import check_format

    require_one(arguments)
    check_format(arguments.format, arguments.quantization, arguments.io)
    if arguments.workdir:
        for name in _OF_A_MODEL:
            given = getattr(arguments, name)
            require(given is None, name, "left out with `workdir`", given)
        _convert_run(arguments)
        return
    require(arguments.output is not None, "output", "given with `model`", arguments.output)
    require(arguments.data is None, "data", "left out with `model`; see `images`", arguments.data)
    from bignas_tf.deploy.model_file import convert_model

    options = {name: getattr(arguments, name) for name in _HANDED_ON}
    conversion = convert_model(arguments.model, arguments.output, **options, verbose=True)
    say(conversion)
    print(f"described in {conversion.sidecar}")


def say(conversion: Any) -> None:
    """Prints what became of a file, and a warning if it is slow on a CPU."""
    print(conversion.summary())
    if conversion.warning():
        print(f"warning: {conversion.warning()}")


def spread(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of images to check with and of others to calibrate with, all over a split.

    A split may be sorted by class. Of one image, both get that.
    """
    count = min(images, VERIFIED + CALIBRATED)
    chosen = np.arange(count) * images // count
    share = max(1, count * VERIFIED // (VERIFIED + CALIBRATED))
    verified = np.isin(np.arange(count), np.arange(share) * count // share)
    return chosen[verified], chosen[~verified] if share < count else chosen


def _convert_run(arguments: Any) -> None:
    from bignas_tf.commands.run_folder import child_files, load_run, recorded, require_current
    from bignas_tf.deploy.formats import check_pair, default_name
    from bignas_tf.deploy.schemes import Quantization
    from bignas_tf.deploy.tflite import ConversionError, TFLiteFileError, VerificationError

    kind = Quantization(arguments.quantization)
    variant = (arguments.format, kind, arguments.io, arguments.preprocessing)
    outputs = {
        path: arguments.workdir / default_name(path.stem, *variant)
        for path in child_files(arguments.workdir)
    }
    for output in outputs.values():
        check_pair(output, arguments.format, arguments.overwrite)
    trained, data = load_run(arguments)
    require_current(list(outputs), trained)
    failures = []
    with recorded(arguments, {}, trained):
        for path, output in outputs.items():
            try:
                _convert_child(path, output, data.calibration, arguments)
            except (ConversionError, VerificationError, TFLiteFileError) as error:
                failures.append(f"{path.stem}: {error}")  # the others may pass
        if failures:
            raise ConversionError("; ".join(failures))


def _convert_child(path: Path, output: Path, split: Any, arguments: Any) -> None:
    from bignas_tf.deploy.formats import export
    from bignas_tf.deploy.model_file import load_model
    from bignas_tf.deploy.preprocessing import in_range, placed
    from bignas_tf.deploy.schemes import SCHEMES, Quantization
    from bignas_tf.deploy.tflite import convert
    from bignas_tf.evaluation import prepared

    model, metadata = placed(*load_model(path), arguments.preprocessing)
    # The files are judged on images that no range was set with.
    verified, calibrated = spread(len(split))

    def images(chosen: np.ndarray) -> np.ndarray:
        size = model.inputs[0].shape[1]
        return in_range(prepared(split.take(chosen), size), metadata["input_range"])

    common: dict[str, Any] = {
        "verification_images": images(verified),
        "metadata": {**metadata, "child": path.stem},
        "overwrite": arguments.overwrite,
    }
    if arguments.format != TFLITE:
        say(export(model, output, arguments.format, **common))
        return
    needed = SCHEMES[Quantization(arguments.quantization)].calibrated
    say(
        convert(
            model,
            output,
            quantization=arguments.quantization,
            calibration_images=images(calibrated) if needed else None,
            io=arguments.io,
            **common,
        )
    )
