"""Trains a supernet, or resumes a run that was stopped.

Writes checkpoints/, log.jsonl, tensorboard/ (under TensorFlow) and run.json to the run's
folder. Ctrl-C and SIGTERM save and stop; the same command resumes from there, on either backend.
Checkpoints are the last three (--set=checkpoints_kept=N) and, where the recipe evaluates
(evaluate_every), the best by held-out accuracy, the mean of the biggest and the smallest child.

Examples:
  bignas train --recipe=photos --data=folder:photos --workdir=runs/mine --dry_run
  bignas train --recipe=cifar10 --data=folder:/data/cifar10 --workdir=runs/cifar10
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from bignas_tf.backend import add_backend
from bignas_tf.checks import require
from bignas_tf.terminal import say


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--recipe", required=True, help="name of a recipe: see `bignas show`")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--data", help="source instead of the recipe's: digits, folder:PATH or tfds:NAME"
    )
    parser.add_argument(
        "--on_bad_image",
        choices=("stop", "skip"),
        help="what an image that cannot be decoded does, instead of the recipe's: skip puts the "
        "next one of its class in its place and lists it in bad_images.json",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="check data, space, memory and disk, estimate the time, write nothing into the folder",
    )
    parser.add_argument("--init_from", help="checkpoint or run folder to start the weights from")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=JSON",
        help="another value for a field of the recipe, such as --set=epochs=5; may be repeated",
    )
    add_loop_options(parser)


def add_loop_options(parser: Any) -> None:
    """Adds --backend and the options of its training loop."""
    add_backend(parser)
    parser.add_argument(
        "--steps_per_call",
        type=int,
        help="steps between two visits to the host; default 1, with jax on an accelerator 32; "
        "tensorflow: on one replica",
    )
    parser.add_argument(
        "--remat",
        action="store_true",
        help="jax: compute activations again in the backward pass: less memory, more time",
    )
    parser.add_argument(
        "--strategy",
        help="tensorflow: one_device (default); mirrored, all devices of this host; multi_worker, "
        "those of all workers of TF_CONFIG, each started with the same command",
    )
    parser.add_argument(
        "--replicas", type=int, help="tensorflow: of a mirrored strategy that divides the CPU"
    )
    parser.add_argument(
        "--no_sync_bn",
        action="store_true",
        help="tensorflow: every replica normalizes by its own rows, not by the global batch",
    )
    parser.add_argument(
        "--varying",
        choices=("sliced", "masked"),
        help="tensorflow: how children that vary run; masked has static shapes, for XLA",
    )
    parser.add_argument(
        "--jit_compile",
        action="store_true",
        help="tensorflow: XLA compiles the step on one replica; needs --varying=masked, slow on a "
        "CPU",
    )


_OF_BACKEND = {
    "jax": ("steps_per_call", "remat"),
    "tensorflow": (
        "steps_per_call", "strategy", "replicas", "no_sync_bn", "varying", "jit_compile",
    ),
}  # fmt: skip


def loop_options(arguments: Any) -> dict[str, Any]:
    """The options of the backend's loop that were given, for `Trainer`.

    Raises:
        ValueError: for one that the backend has not.
    """
    names = {name for known in _OF_BACKEND.values() for name in known}
    given = {name: getattr(arguments, name) for name in sorted(names)}
    given = {k: v for k, v in given.items() if v is not None and v is not False}
    for name, value in given.items():
        having = [backend for backend, known in _OF_BACKEND.items() if name in known]
        ok = arguments.backend in having
        require(ok, name, f"left out without --backend={having[0]}", value)
    name, replicas = given.pop("strategy", "one_device"), given.pop("replicas", None)
    if arguments.backend == "tensorflow":
        from bignas_tf.training.layout import build_strategy

        given["strategy"] = build_strategy(name, replicas)
        given["synchronized"] = not given.pop("no_sync_bn", False)
    return given


def overrides(settings: list[str]) -> dict[str, Any]:
    """Reads FIELD=JSON pairs.

    Raises:
        ValueError: for a pair without "=" or an unknown field.
    """
    import dataclasses

    from bignas_tf.checks import require_choice
    from bignas_tf.training.recipe import Recipe

    fields = tuple(field.name for field in dataclasses.fields(Recipe))
    found = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"`set` must be FIELD=JSON, such as epochs=5. Received: {setting}")
        require_choice("set", name, fields)
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text  # a bare word is a string
    return found


def main(arguments: Any) -> int:
    """Runs the command."""
    from bignas_tf.data import BrokenImageError, DataError

    try:
        return _train(arguments)
    except BrokenImageError as error:
        way_on = "--on_bad_image=skip puts the next one of its class in its place"
        raise DataError(f"{error}; {way_on}") from error


def _train(arguments: Any) -> int:
    from bignas_tf.training.recipe import get_recipe

    # A strategy of several workers has to come before anything runs.
    options = loop_options(arguments)
    recipe = get_recipe(arguments.recipe).replace(**overrides(arguments.set))
    if arguments.init_from:
        recipe = recipe.replace(init_from=arguments.init_from)
    if arguments.on_bad_image:
        recipe = recipe.replace(on_bad_image=arguments.on_bad_image)
    if arguments.dry_run:
        return _dry_run(recipe, arguments, options)
    from bignas_tf.training.trainer import Trainer

    trainer = Trainer(
        recipe,
        arguments.workdir,
        data=arguments.data,
        command=["bignas", *sys.argv[1:]],
        loop_options=options,
    )
    step = trainer.run()
    if step < trainer.total_steps:
        say(f"stopped and saved at step {step} of {trainer.total_steps}; the same command resumes")
        return 130 if trainer.interrupted == signal.SIGINT else 0
    saved = f"checkpoint {trainer.checkpoints.manager.latest()}"
    # Which another worker may still be writing.
    say(f"trained {step} steps; {'worker 0 saves' if trainer.loop.worker else saved}")
    return 0


def _dry_run(recipe: Any, arguments: Any, options: dict[str, Any]) -> int:
    from bignas_tf.training.dry_run import dry_run

    found = dry_run(recipe, arguments.workdir, data=arguments.data, loop_options=options)
    for subject, text in found.items():
        print(f"{subject:8}{text}")
    return 0
