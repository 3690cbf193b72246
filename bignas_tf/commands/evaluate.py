"""Measures accuracy on test images, with no finetuning.

For a run: every extracted child, calibrated and, to compare, with the biggest child's
statistics instead of its own; the biggest and the smallest child; for the digits also a
logistic regression. Writes evaluation.json to the run's folder.

For a single model on the test images of --data: top 1, top 5 and every class. A .keras, .tflite
or .onnx file or a SavedModel's folder, whose JSON says how to preprocess, or a model of the zoo
that has weights.

Examples:
  bignas evaluate --workdir=runs/cifar10
  bignas evaluate --model=child.tflite --data=folder:/data/cifar10
  bignas evaluate --model=bignascifar_s --data=folder:/data/cifar10
  bignas evaluate --model=child.onnx --data=folder:/data/cifar10 --json=accuracy.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bignas_tf.backend import add_backend
from bignas_tf.commands.run_folder import require_one


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", type=Path, help="folder of the run")
    parser.add_argument(
        "--model",
        type=Path,
        help="a .keras, .tflite or .onnx file, a SavedModel, or a zoo name, instead",
    )
    parser.add_argument(
        "--data",
        help="source: digits, folder:PATH or tfds:NAME; with --workdir only if it has moved",
    )
    parser.add_argument(
        "--image_size", type=int, help="of --data, with --model, if not the model's input size"
    )
    parser.add_argument("--json", type=Path, help="file for the figures of --model")
    add_backend(parser)


def main(arguments: Any) -> None:
    """Runs the command."""
    require_one(arguments)
    if arguments.model:
        _evaluate_file(arguments)
    else:
        for name in ("json", "image_size"):
            given = getattr(arguments, name)
            if given is not None:
                raise ValueError(f"`{name}` must be given with `model`. Received: {given}")
        _evaluate_run(arguments)


def _evaluate_run(arguments: Any) -> None:
    from bignas_tf.commands.run_folder import child_files, load_run, recorded, require_current
    from bignas_tf.run_evaluation import RunEvaluation
    from bignas_tf.training.logs import write_record

    files = child_files(arguments.workdir)
    trained, data = load_run(arguments)
    require_current(files, trained)
    with recorded(arguments, {}, trained):
        evaluation = RunEvaluation(trained.supernet, data.calibration, data.source)
        result = evaluation.run(files, data.train if data.source.name == "digits" else None)
        write_record(arguments.workdir / "evaluation.json", result)
    rows = result["children"] | {k: result[k] for k in ("biggest", "smallest")}
    for name, row in (rows | result["baselines"]).items():
        low, high = row["top1_interval"]
        line = f"{name}: {row['top1']:.2%} ({low:.2%} to {high:.2%})"
        if "top1_uncalibrated" in row:
            line += f", uncalibrated {row['top1_uncalibrated']:.2%}"
        print(line)
    print(f"of {result['images']} {result['split']} images; written to {arguments.workdir}")


def _evaluate_file(arguments: Any) -> None:
    import dataclasses

    from bignas_tf.data import load_source
    from bignas_tf.deploy.file_evaluation import evaluate
    from bignas_tf.deploy.runner import open_model
    from bignas_tf.files import check_output, write_json

    if arguments.data is None:
        raise ValueError("`data` must be given with `model`. Received: None")
    path: Path = arguments.model
    if arguments.json:
        check_output(arguments.json, overwrite=True)
    runner = open_model(path)
    if "input_range" not in runner.metadata:
        print(f"warning: no JSON of {path} tells its input range; -1 to 1 is taken")
    size = arguments.image_size or runner.metadata.get("image_size") or runner.shape[0]
    # Encoded: the classes are compared before anything is decoded.
    source = load_source(
        arguments.data, image_size=size, channels=runner.shape[-1], encoded=True, test_only=True
    )
    evaluation = evaluate(runner, source, progress=True)
    print(f"{path}: {evaluation.summary()}")
    print(evaluation.table())
    if arguments.json:
        figures = dataclasses.asdict(evaluation)
        write_json(arguments.json, {"model": str(path), "data": arguments.data, **figures})
