"""Measures accuracy on test images, with no finetuning.

For a run: every extracted child, calibrated and, to compare, with the biggest child's
statistics instead of its own; the biggest and the smallest child; for the digits also a
logistic regression. Writes evaluation.json. For a single file: a child's .keras or a
.tflite, on the test images of --data.

Examples:
  bignas evaluate --workdir=runs/cifar10
  bignas evaluate --model=child.tflite --data=folder:/data/cifar10
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bignas_tf.backend import add_backend
from bignas_tf.commands.run_folder import require_one


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", type=Path, help="folder of the run")
    parser.add_argument("--model", type=Path, help="a .keras or .tflite file instead")
    parser.add_argument("--data", help="source: digits, folder:PATH or tfds:NAME")
    parser.add_argument("--image_size", type=int, help="of --data, if not the model's input size")
    add_backend(parser)


def main(arguments: Any) -> None:
    """Runs the command."""
    require_one(arguments)
    if arguments.model:
        _evaluate_file(arguments)
    else:
        _evaluate_run(arguments)


def _evaluate_run(arguments: Any) -> None:
    from bignas_tf.commands.run_folder import child_files, load_run, recorded, require_current
    from bignas_tf.run_evaluation import RunEvaluation
    from bignas_tf.training.logs import write_json

    files = child_files(arguments.workdir)
    trained, data = load_run(arguments)
    require_current(files, trained)
    with recorded(arguments, {}, trained):
        evaluation = RunEvaluation(trained.supernet, data.calibration, data.source)
        result = evaluation.run(files, data.train if data.source.name == "digits" else None)
        write_json(arguments.workdir / "evaluation.json", result)
    rows = result["children"] | {k: result[k] for k in ("biggest", "smallest")}
    for name, row in (rows | result["baselines"]).items():
        low, high = row["top1_interval"]
        line = f"{name}: {row['top1']:.2%} ({low:.2%} to {high:.2%})"
        if "top1_uncalibrated" in row:
            line += f", uncalibrated {row['top1_uncalibrated']:.2%}"
        print(line)
    print(f"of {result['images']} {result['split']} images; written to {arguments.workdir}")


def _evaluate_file(arguments: Any) -> None:
    import numpy as np

    from bignas_tf.data import load_source
    from bignas_tf.deploy.interpreter import input_and_output, load_interpreter, predict
    from bignas_tf.deploy.model_file import load_model, range_of, read_sidecar
    from bignas_tf.evaluation import prepared
    from bignas_tf.intervals import wilson_interval

    if arguments.data is None:
        raise ValueError("`data` must be given with `model`. Received: None")
    path: Path = arguments.model
    if path.suffix == ".tflite":
        interpreter = load_interpreter(path)
        shape = input_and_output(interpreter)[0].shape[1:]
        known = read_sidecar(path)

        def run(images: Any) -> Any:
            return predict(interpreter, images)
    else:
        model, known = load_model(path)
        shape = tuple(model.inputs[0].shape[1:])

        def run(images: Any) -> Any:
            return model.predict(images, verbose=0)

    black, white = range_of(known)
    size = arguments.image_size or known.get("image_size") or shape[0]
    source = load_source(arguments.data, image_size=size, channels=shape[-1])
    if known.get("labels", list(source.classes)) != list(source.classes):
        raise ValueError(
            f"`data` must have the classes of {path}, {', '.join(known['labels'])}. "
            f"Received: {', '.join(source.classes)}"
        )
    images = prepared(source.test, shape[0])
    if (black, white) != (-1.0, 1.0):
        images = (images + 1) * np.float32((white - black) / 2) + np.float32(black)
    logits = run(images)
    if logits.shape[1:] != (len(source.classes),):
        raise ValueError(
            f"`data` must have as many classes as {path}, {logits.shape[-1]}. "
            f"Received: {len(source.classes)}"
        )
    top1 = float((logits.argmax(-1) == source.test.labels).mean())
    low, high = wilson_interval(top1, len(source.test))
    print(f"{path}: {top1:.2%} ({low:.2%} to {high:.2%}) of {len(source.test)} test images")
