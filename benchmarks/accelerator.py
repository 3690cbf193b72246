"""All that one accelerator is asked for, as one command that goes on where it was stopped.

1. `jax_step.py`: speed, MAC utilization and memory of the sandwich step.
2. `bignas sweep`: the CIFAR-10 recipe trained to its end under JAX, children selected on
   held-out training images, measured on the test images.

Everything lands in --workdir: jax_step.json, sweep.json (what was asked), sweep/results.csv
and the runs. TensorFlow is not needed; convert the chosen children on another machine:
`bignas extract` and `bignas convert` with --workdir=WORKDIR/sweep/full-seed0.

python benchmarks/accelerator.py --data=folder:/data/cifar10 --workdir=runs/accelerator
python benchmarks/accelerator.py --recipe=digits --data=digits --epochs=2 --batch=32 \
    --budget=mmacs:0.4,1.6 --names=s,xl --workdir=runs/reduced
"""

import json
import os
import pathlib
import subprocess
import sys

from absl import app, flags

_DATA = flags.DEFINE_string(
    "data", None, "Source: folder:PATH, digits or tfds:NAME.", required=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of everything.", required=True)
_RECIPE = flags.DEFINE_string("recipe", "cifar10", "Recipe to train.")
_EPOCHS = flags.DEFINE_integer("epochs", None, "Default: the recipe's.", lower_bound=1)
_PRECISION = flags.DEFINE_string("precision", None, "Default: the recipe's.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Of the runs.")
_BUDGET = flags.DEFINE_string("budget", "mmacs:3.4,5,7,10", "Of the selected children.")
_NAMES = flags.DEFINE_string("names", "s,m,l,xl", "Of the selected children.")
_BATCH = flags.DEFINE_integer("batch", 128, "Of the measured step.", lower_bound=1)
_CALLS = flags.DEFINE_integer("calls", 5, "Timed calls of the measured step.", lower_bound=1)


def _sweep() -> dict[str, object]:
    given = {"epochs": _EPOCHS.value, "precision": _PRECISION.value}
    return {
        "recipe": _RECIPE.value,
        "data": _DATA.value,
        "set": {field: value for field, value in given.items() if value is not None},
        "variants": {"full": {}},
        "seeds": [int(seed) for seed in _SEEDS.value],
        "select": {"budget": _BUDGET.value, "names": _NAMES.value},
    }


def main(argv: list[str]) -> None:
    """Runs what is not done yet."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    # Recipes load Keras, which must not load TensorFlow, nor this process the accelerator.
    os.environ["KERAS_BACKEND"] = "jax"
    from bignas_tf.training.recipe import get_recipe

    workdir = pathlib.Path(_WORKDIR.value)
    workdir.mkdir(parents=True, exist_ok=True)
    step, plan = workdir / "jax_step.json", workdir / "sweep.json"
    plan.write_text(json.dumps(_sweep(), indent=2) + "\n", encoding="utf-8")
    measure = pathlib.Path(__file__).with_name("jax_step.py")
    commands = [
        [str(measure), f"--space={get_recipe(_RECIPE.value).space}", f"--batch={_BATCH.value}"]
        + [f"--calls={_CALLS.value}", f"--json={step}"],
        ["-m", "bignas_tf.cli", "sweep", "--backend=jax", f"--file={plan}"]
        + [f"--workdir={workdir / 'sweep'}"],
    ]
    if step.exists():  # the sweep knows by itself what is done
        print(f"{step} is there; delete it to measure again")
        del commands[0]
    for command in commands:
        done = subprocess.run([sys.executable, *command], check=False)  # noqa: S603
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    app.run(main)
