"""Trains a supernet, or goes on with a run that was stopped.

Writes checkpoints/, log.jsonl, tensorboard/ (under TensorFlow) and run.json to the run's
folder. Ctrl-C saves and stops; the same command goes on from there, on either backend.

Example:
  bignas train --recipe=cifar10 --data=folder:/data/cifar10 --workdir=runs/cifar10
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bignas_tf.backend import add_backend
from bignas_tf.checks import require


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--recipe", required=True, help="name of a recipe: see `bignas show`")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--data", help="source instead of the recipe's: digits, folder:PATH or tfds:NAME"
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
        help="jax: steps between two visits to the host; default 32 on an accelerator, 1 on a CPU",
    )
    parser.add_argument(
        "--remat",
        action="store_true",
        help="jax: compute activations again in the backward pass: less memory, more time",
    )


def loop_options(arguments: Any) -> dict[str, Any]:
    """The options of the JAX loop that were given.

    Raises:
        ValueError: for one that another backend has not.
    """
    given = {"steps_per_call": arguments.steps_per_call, "remat": arguments.remat}
    given = {k: v for k, v in given.items() if v is not None and v is not False}
    for name, value in given.items():
        require(arguments.backend == "jax", name, "left out without --backend=jax", value)
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
    from bignas_tf.training.recipe import get_recipe

    recipe = get_recipe(arguments.recipe).replace(**overrides(arguments.set))
    if arguments.init_from:
        recipe = recipe.replace(init_from=arguments.init_from)
    from bignas_tf.training.trainer import Trainer

    trainer = Trainer(
        recipe,
        arguments.workdir,
        data=arguments.data,
        command=["bignas", *sys.argv[1:]],
        loop_options=loop_options(arguments),
    )
    step = trainer.run()
    if trainer.interrupted:
        print(
            f"stopped and saved at step {step} of {trainer.total_steps}; the same command goes on"
        )
        return 130
    print(f"trained {step} steps; checkpoint {trainer.manager.latest()}")
    return 0
