"""Finetunes an extracted child for its file: quantization-aware, pruned or clustered.

Trains on the run's training images with its augmentation, held-out images kept out, and
writes NAME_qat_int8.tflite (NAME_pruned.tflite, NAME_clustered.tflite, NAME_finetuned.tflite)
with its JSON to the run's folder, checked against the finetuned network. Checkpoints and log
go to finetune/NAME_TECHNIQUE/; Ctrl-C saves and stops; the same command resumes from there.
Another --quantization, --io or --preprocessing makes another file of the same training. Needs
the extra `tfmot`.

Examples:
  bignas finetune --workdir=runs/cifar10 --child=s --technique=quantize --epochs=2
  bignas finetune --workdir=runs/cifar10 --child=s --technique=prune --sparsity=0.6
  bignas finetune --workdir=runs/cifar10 --child=s --technique=cluster --clusters=16
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from bignas_tf import terminal
from bignas_tf.checks import require
from bignas_tf.commands.run_folder import add_workdir
from bignas_tf.deploy.preprocessing import OUTSIDE, PREPROCESSING
from bignas_tf.training.finetune_settings import TECHNIQUES, FinetuneSettings

SUFFIXES = {"prune": "pruned", "cluster": "clustered", "plain": "finetuned"}
OWN: dict[str, dict[str, Any]] = {
    "prune": {"sparsity": 0.5},
    "cluster": {"clusters": 16},
}  # by default


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    add_workdir(parser)
    parser.add_argument("--child", required=True, help="NAME of children/NAME.keras")
    parser.add_argument(
        "--technique",
        required=True,
        choices=TECHNIQUES,
        help="plain: float training, nothing else",
    )
    parser.add_argument("--epochs", type=float, default=1.0, help="also less than one (default 1)")
    parser.add_argument(
        "--learning_rate", type=float, default=3e-4, help="of Adam, falls to 0 (default 3e-4)"
    )
    parser.add_argument("--batch_size", type=int, help="default: the run's")
    parser.add_argument(
        "--seed", type=int, help="of data order and augmentation; default: the run's"
    )
    parser.add_argument("--sparsity", type=float, help="to prune: share of zeros (default 0.5)")
    parser.add_argument("--clusters", type=int, help="to cluster: values of a kernel (default 16)")
    parser.add_argument(
        "--quantization", help="post-training, of a pruned, clustered or plain file: see convert"
    )
    parser.add_argument(
        "--io", choices=("int8", "uint8", "float32"), help="input and output of a quantized file"
    )
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSING,
        default=OUTSIDE,
        help="inside: the file takes pixels of 0 to 255; outside: -1 to 1 (default: outside)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def main(arguments: Any) -> int:
    """Runs the command."""
    settings = _settings(arguments)
    quantization = _quantization(arguments)
    path = _child_path(arguments)
    output = arguments.workdir / _file_name(arguments, quantization)
    from bignas_tf.deploy.formats import TFLITE, check_pair

    check_pair(output, TFLITE, arguments.overwrite)
    from bignas_tf.commands.convert import say, spread
    from bignas_tf.commands.run_folder import load_run, recorded, require_current
    from bignas_tf.deploy.finetuning.finetuned import Images, write_finetuned
    from bignas_tf.deploy.quiet import captured_stderr

    with captured_stderr():
        # Missing, it is missed before work.
        importlib.import_module("bignas_tf.deploy.finetuning.tfmot")
    trained, data = load_run(arguments)
    require_current([path], trained)
    settings = settings.filled(trained.recipe)
    child, spec, metadata = _load(path)
    finetuner = _finetuner(arguments, settings, (child, spec), trained, data)
    finetuner.run()
    if finetuner.interrupted:
        step, total = finetuner.step, finetuner.total_steps
        terminal.say(f"stopped and saved at step {step} of {total}; the same command resumes")
        return 130
    with recorded(arguments, {"finetune": settings.seed or 0}, trained):
        verified, calibrated = (data.calibration.take(i) for i in spread(len(data.calibration)))
        images = Images.of(calibrated, verified, data.held_out, spec.input_shape[0])
        before = images.top1(lambda batch: child(batch, training=False))
        finetuning = settings.to_json() | {"steps": finetuner.step, "top1_child": before}
        conversion, measured = write_finetuned(
            finetuner.network,
            spec,
            output,
            images,
            quantization=quantization,
            io=arguments.io,
            metadata=metadata | {"finetuning": finetuning, "child": path.stem},
            preprocessing=arguments.preprocessing,
            overwrite=arguments.overwrite,
        )
    say(conversion)
    print(_report(before, measured))
    return 0


def _settings(arguments: Any) -> FinetuneSettings:
    """Checks what was asked for; the run's recipe fills in what was not."""
    own = {name: getattr(arguments, name) for name in ("sparsity", "clusters")}
    for name, value in OWN.get(arguments.technique, {}).items():
        own[name] = value if own[name] is None else own[name]
    names = ("technique", "epochs", "learning_rate", "batch_size", "seed")
    return FinetuneSettings(**{name: getattr(arguments, name) for name in names}, **own)


def _quantization(arguments: Any) -> str:
    """What the file is quantized to.

    Raises:
        ValueError: for one that does not go with the technique or with --io.
    """
    from bignas_tf.deploy.schemes import POST_TRAINING, SCHEMES, Quantization

    given = arguments.quantization
    if arguments.technique == "quantize":
        require(given is None, "quantization", "left out to quantize", given)
        kind = Quantization.QAT_INT8
    else:
        kind = Quantization.parse(given or "float32")
        allowed = ", ".join(kind.value for kind in POST_TRAINING)
        require(kind in POST_TRAINING, "quantization", f"one of {allowed}", kind.value)
    SCHEMES[kind].interface(arguments.io)
    return kind.value


def _file_name(arguments: Any, quantization: str) -> str:
    """Such as s_qat_int8.tflite, s_pruned_int8_uint8_inside.tflite."""
    from bignas_tf.deploy.formats import TFLITE, default_name
    from bignas_tf.deploy.schemes import Quantization

    suffix = SUFFIXES.get(arguments.technique)
    stem = f"{arguments.child}_{suffix}" if suffix else arguments.child
    variant = (Quantization(quantization), arguments.io, arguments.preprocessing)
    return default_name(stem, TFLITE, *variant)


def _child_path(arguments: Any) -> Path:
    """The child's file.

    Raises:
        ValueError: if there is no child of that name.
        FileNotFoundError: if there are no children.
    """
    from bignas_tf.commands.run_folder import child_files

    files = {path.stem: path for path in child_files(arguments.workdir)}
    require(arguments.child in files, "child", f"one of {', '.join(files)}", arguments.child)
    return files[arguments.child]


def _load(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A child, its network and its JSON."""
    from bignas_tf.deploy.model_file import load_model
    from bignas_tf.spec import NetworkSpec

    child, metadata = load_model(path)
    if "spec" not in metadata:
        raise ValueError(f"the JSON beside the child must have its `spec`. Received: {path}")
    return child, NetworkSpec.from_json(metadata["spec"]), metadata


def _finetuner(
    arguments: Any, settings: Any, network: tuple[Any, Any], trained: Any, data: Any
) -> Any:
    """Builds what trains, in finetune/NAME_TECHNIQUE."""
    import numpy as np

    from bignas_tf.data.batches import BatchPlan
    from bignas_tf.deploy.finetuning.finetuned import finetunable
    from bignas_tf.deploy.finetuning.folded import folded_weights
    from bignas_tf.extract import weights_identity
    from bignas_tf.training.finetune import Finetuner

    child, spec = network
    weights = folded_weights(
        spec, {variable.path: np.asarray(variable) for variable in child.variables}
    )
    # Not of the child's variables: its dropout has a random seed.
    identity = weights_identity(
        {f"{k}/{i}": a for k, v in weights.items() for i, a in enumerate(v)}
    )
    plan = BatchPlan(
        data.train,
        batch_size=settings.batch_size,
        policy=trained.recipe.policy(),
        seed=settings.seed,
    )
    steps = settings.steps(plan.steps_per_epoch)
    return Finetuner(
        finetunable(settings, spec, weights, steps),
        plan,
        settings,
        arguments.workdir / "finetune" / f"{arguments.child}_{arguments.technique}",
        {"child": identity, "images": data.source.fingerprint},
        ["bignas", *sys.argv[1:]],
    )


def _report(before: float | None, measured: dict[str, Any]) -> str:
    """What the finetuning did, for people."""
    from bignas_tf.deploy.finetuning.file_weights import FileWeights

    kernels = FileWeights(**measured["kernels"]).summary()
    if before is None:
        return f"{kernels}\nthe run held no images out: no accuracy measured"
    return (
        f"{kernels}\ntop-1 of {measured['images']} held-out images: child {before:.2%}, "
        f"finetuned network {measured['top1_network']:.2%}, file {measured['top1_file']:.2%}"
    )
