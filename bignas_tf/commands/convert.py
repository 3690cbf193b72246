"""Converts children to TFLite and checks each file against its Keras model.

For a run: every extracted child, calibrated and checked on training images; writes
NAME.tflite (or NAME_int8.tflite, ...) and its JSON to the run's folder. For a single
.keras file or zoo model see also export/convert_tflite.py.

Examples:
  bignas convert --workdir=runs/cifar10 --quantization=int8
  bignas convert --model=child.keras --images=photos --output=child.tflite
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.commands.run_folder import require_one

QUANTIZATIONS = ("float32", "float16", "dynamic", "int8")
VERIFIED, CALIBRATED = 64, 256  # images


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", type=Path, help="folder of the run")
    parser.add_argument("--model", help="a .keras file or a zoo name such as bignasmodel_m instead")
    parser.add_argument("--output", type=Path, help="file to write, with --model")
    parser.add_argument("--images", help="folder of images to check with, with --model")
    parser.add_argument("--data", help="source of --workdir, if it has moved since the training")
    parser.add_argument("--quantization", default="float32", choices=QUANTIZATIONS)
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def main(arguments: Any) -> None:
    """Runs the command."""
    require_one(arguments)
    if arguments.workdir:
        _convert_run(arguments)
        return
    from bignas_tf.deploy.model_file import convert_model

    if arguments.output is None:
        raise ValueError("`output` must be given with `model`. Received: None")
    conversion = convert_model(
        arguments.model,
        arguments.output,
        quantization=arguments.quantization,
        images=arguments.images,
        overwrite=arguments.overwrite,
        verbose=True,
    )
    print(conversion.summary())


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
    from bignas_tf.commands.run_folder import child_files, load_run, recorded
    from bignas_tf.files import check_output

    suffix = "" if arguments.quantization == "float32" else f"_{arguments.quantization}"
    outputs = {
        path: arguments.workdir / f"{path.stem}{suffix}.tflite"
        for path in child_files(arguments.workdir)
    }
    for output in outputs.values():
        check_output(output, arguments.overwrite)
    trained, data = load_run(arguments)
    with recorded(arguments, {}, trained):
        for path, output in outputs.items():
            _convert_child(path, output, data.calibration, arguments)


def _convert_child(path: Path, output: Path, split: Any, arguments: Any) -> None:
    from bignas_tf.deploy.model_file import load_model
    from bignas_tf.deploy.schemes import SCHEMES, Quantization
    from bignas_tf.deploy.tflite import convert
    from bignas_tf.evaluation import prepared

    model, metadata = load_model(path)
    size = model.inputs[0].shape[1]
    # The files are judged on images that no range was set with.
    verified, calibrated = spread(len(split))
    needed = SCHEMES[Quantization(arguments.quantization)].calibrated
    conversion = convert(
        model,
        output,
        quantization=arguments.quantization,
        calibration_images=prepared(split.take(calibrated), size) if needed else None,
        verification_images=prepared(split.take(verified), size),
        metadata=metadata,
        overwrite=arguments.overwrite,
    )
    print(conversion.summary())
