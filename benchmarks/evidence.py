"""The method's claims on CIFAR-10: every run, table and plot.

Parts, each of which resumes where it was stopped; finetuning, alone and calibration need main:
  main         the supernet, and S, M, L, XL selected under 3.4, 5, 7 and 10 MMACs
  ending       the supernet once more, the learning rate falling to the end
  finetuning   each of them finetuned for two epochs at four learning rates
  alone        S and L trained alone, by an external teacher, and jointly with their own
  rates        learning rates for the ablations, with and without distillation, one seed
  ablations    one switch off at a time in the space `cifar_small`, several seeds
  calibration  S and L calibrated on 64 to 8,192 images (benchmarks/calibration.py)
  tables       what of all this is done, as CSV files and plots; after each part too

One run of a part at a time on a machine; parts may run side by side on several.

python benchmarks/evidence.py --data=folder:/data/cifar10 --workdir=runs/evidence
python benchmarks/evidence.py --data=folder:/data/cifar10 --workdir=runs/evidence --parts=tables
"""

import json
import os
import pathlib
import subprocess
import sys

import evidence_tables
from absl import app, flags

PARTS = ("main", "ending", "finetuning", "alone", "rates", "ablations", "calibration")
_DATA = flags.DEFINE_string("data", None, "CIFAR-10: folder:PATH or tfds:cifar10.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.", required=True)
_PARTS = flags.DEFINE_list("parts", [*PARTS, "tables"], "What to do of the above.")
_RESULTS = flags.DEFINE_string("results", "zoo/results", "Where the CSV files go.")
_PLOTS = flags.DEFINE_string("plots", "docs", "Where the plots go.")
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Of main, ending and alone.", lower_bound=1)
_SHORT = flags.DEFINE_integer("ablation_epochs", 4, "Of rates and ablations.", lower_bound=1)
_SEEDS = flags.DEFINE_list("ablation_seeds", ["0", "1", "2"], "Of the ablations.")
_BACKEND = flags.DEFINE_enum("backend", "tensorflow", ["tensorflow", "jax"], "Of Keras.")

SELECT = {"budget": "mmacs:3.4,5,7,10", "names": "s,m,l,xl"}
# The paper's three, and what the supernet's own training ends with.
FINETUNING_RATES = (0.01, 0.001, 0.0001, 0.04)
RATES_TRIED = (0.2, 0.4, 0.8, 1.6)
# Of the ablations: the best of rates for learning from labels, less than the best for `full`, so
# that no variant loses by too large a step.
RATE = 0.4
# Between the ends: some choice of every gene that is neither smallest nor biggest, or either.
MIDDLE = {
    "resolution": 28, "stem_width": 8, "stage1_width": 16, "stage1_depth": 2,
    "stage1_kernel": 3, "stage1_expand": 2, "stage2_width": 24, "stage2_depth": 2,
    "stage2_kernel": 5, "stage2_expand": 3, "stage3_width": 56, "stage3_depth": 1,
    "stage3_kernel": 3, "stage3_expand": 3, "head_width": 160,
}  # fmt: skip


def _main_run() -> pathlib.Path:
    return pathlib.Path(_WORKDIR.value) / "main" / "full-seed0"


def _selected() -> dict[str, dict[str, int]]:
    from bignas_tf.search.results import read_selected

    try:
        selected = read_selected(_main_run() / "select")
    except FileNotFoundError as error:
        raise app.UsageError(f"{error}; --parts=main does it here") from error
    return {entry["name"]: entry["genotype"] for entry in selected}


def _schedule(**fields: object) -> dict[str, object]:
    from bignas_tf.training.recipe import get_recipe

    return {**get_recipe("cifar10").schedule, **fields}


def _main() -> dict[str, object]:
    return {"set": {"epochs": _EPOCHS.value}, "variants": {"full": {}}, "select": SELECT}


def _ending() -> dict[str, object]:
    variants = {"no_constant_ending": {"schedule": _schedule(constant_ending=False)}}
    return {"set": {"epochs": _EPOCHS.value}, "variants": variants}


def _finetuning() -> dict[str, object]:
    variants = {
        f"{name}-lr{rate:g}": {
            "restrict": {gene: [value] for gene, value in genotype.items()},
            "schedule": {"kind": "cosine", "initial": rate},
        }
        for name, genotype in _selected().items()
        for rate in FINETUNING_RATES
    }
    # A rate that falls to zero leaves no noise to average away.
    common = {"epochs": 2, "init_from": str(_main_run()), "evaluate_every": 0, "ema": 0.0}
    return {"set": common, "variants": variants}


def _alone() -> dict[str, object]:
    from bignas_tf.spaces import get_space

    biggest = get_space("cifar").biggest().as_dict()
    selected, variants = _selected(), {}
    for name in ("s", "l"):
        one = {gene: [value] for gene, value in selected[name].items()}
        pairs = {gene: [value, biggest[gene]] for gene, value in selected[name].items()}
        variants[f"{name}-alone"] = {"restrict": one}
        variants[f"{name}-teacher"] = {"restrict": one, "teacher": str(_main_run())}
        variants[f"{name}-jointly"] = {"restrict": pairs, "random_children": 0}
    return {"set": {"epochs": _EPOCHS.value, "evaluate_every": 0}, "variants": variants}


def _short(rate: float, **fields: object) -> dict[str, object]:
    """The schedule of a few epochs: the decay counts from step 0, so the warm-up is short."""
    return _schedule(initial=rate, warmup_epochs=0.2, **fields)


def _few_epochs() -> dict[str, object]:
    # The recipe's average would still hold the first weights.
    common = {"space": "cifar_small", "epochs": _SHORT.value, "ema": 0.995}
    return {**common, "evaluate_every": 0}


def _rates() -> dict[str, object]:
    variants = {
        f"{name}-rate{rate:g}": {**fields, "schedule": _short(rate)}
        for rate in RATES_TRIED
        for name, fields in (("full", {}), ("no_distillation", {"distillation": False}))
    }
    return {"set": _few_epochs(), "variants": variants, "children": {"middle": MIDDLE}}


def _ablations() -> dict[str, object]:
    labels = {"distillation": False, "regularize": "all"}  # what single paths are trained with
    paths = {**labels, "sandwich": False}
    every_epoch = {"evaluate_every": 1}  # for the curves
    variants = {
        "full": every_epoch,
        "no_distillation": {"distillation": False},
        "no_zero_gamma": {"zero_gamma": False},
        "no_transition_shortcuts": {"shortcut": "identity"},
        "no_constant_ending": {"schedule": _short(RATE, constant_ending=False), **every_epoch},
        "regularize_all": {"regularize": "all"},
        "sandwich_on_labels": labels,
        "no_sandwich": {**paths, "random_children": 1},
        "no_sandwich_four_paths": {**paths, "random_children": 4},
    }
    return {
        "set": {**_few_epochs(), "schedule": _short(RATE)},
        "variants": variants,
        "seeds": [int(seed) for seed in _SEEDS.value],
        "children": {"middle": MIDDLE},
    }


SWEEPS = {
    "main": _main,
    "ending": _ending,
    "finetuning": _finetuning,
    "alone": _alone,
    "rates": _rates,
    "ablations": _ablations,
}


def _command(part: str) -> list[str]:
    workdir = pathlib.Path(_WORKDIR.value)
    if part == "calibration":
        study = pathlib.Path(__file__).with_name("calibration.py")
        return [
            str(study), f"--workdir={_main_run()}", f"--data={_DATA.value}", "--names=s,l",
            f"--csv={workdir / 'calibration.csv'}",
        ]  # fmt: skip
    path = workdir / f"{part}.json"
    sweep = {"recipe": "cifar10", "data": _DATA.value, **SWEEPS[part]()}
    path.write_text(json.dumps(sweep, indent=2) + "\n", encoding="utf-8")
    sweep_command = ["-m", "bignas_tf.cli", "sweep", f"--file={path}"]
    return [*sweep_command, f"--workdir={workdir / part}", f"--backend={_BACKEND.value}"]


def main(argv: list[str]) -> None:
    """Runs what is not done yet."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    unknown = sorted({*_PARTS.value} - {*PARTS, "tables"})
    if unknown:
        raise app.UsageError(f"--parts must be of {', '.join(PARTS)}, tables; got {unknown}")
    os.environ["KERAS_BACKEND"] = _BACKEND.value  # recipes load Keras
    pathlib.Path(_WORKDIR.value).mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if part in _PARTS.value:
            done = subprocess.run([sys.executable, *_command(part)], check=False)  # noqa: S603
            if done.returncode:
                sys.exit(done.returncode)
    evidence_tables.write(
        pathlib.Path(_WORKDIR.value), pathlib.Path(_RESULTS.value), pathlib.Path(_PLOTS.value)
    )


if __name__ == "__main__":
    app.run(main)
