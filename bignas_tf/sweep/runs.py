"""The runs of a sweep, one after the other: trained, measured and written down."""

from __future__ import annotations

import datetime
import gc
import json
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bignas_tf import cost
from bignas_tf.files import check_output, only_writer, replacing
from bignas_tf.intervals import wilson_interval
from bignas_tf.machine import device
from bignas_tf.masked_evaluation import child_evaluator
from bignas_tf.search.run_search import search_run
from bignas_tf.sweep.plan import PlannedRun, SweepPlan, check_plan
from bignas_tf.sweep.results import FINISHED, RESULTS, Results, Row, RunFile
from bignas_tf.training.loop import NonFiniteLossError
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.state import load_trained
from bignas_tf.training.trainer import Trainer

ENDS = ("biggest", "smallest")
# Names that no other child may have: the last are those of `PREDICTIONS` and of NumPy's writer.
TAKEN = (*ENDS, "labels", "file", "allow_pickle")
MEASURED = ("select", "children")  # what a run's weights do not depend on
# Of each run: the top class of every test image by child, and the `labels`.
PREDICTIONS = "predictions.npz"


def run_sweep(
    plan: SweepPlan,
    workdir: str | Path,
    *,
    command: list[str] | None = None,
    loop_options: Mapping[str, Any] | None = None,
) -> bool:
    """Makes the runs that are not yet in the results, or goes on with them.

    Args:
        plan: the runs.
        workdir: of the sweep: a folder per run, and results.csv.
        command: recorded in each run.json.
        loop_options: of `Trainer`.

    Returns:
        Whether all are done; false where Ctrl-C or SIGTERM stopped a training.

    Raises:
        ValueError: before any work, for a plan that some run of could not be made, or that
            has other settings than what is in `workdir`.
        FolderInUse: a ValueError, if another sweep writes to `workdir`.
    """
    workdir = Path(workdir)
    settings = check_plan(plan, loop_options)
    workdir.mkdir(parents=True, exist_ok=True)
    with only_writer(workdir, "written to"):  # a second one would lose rows of the first
        return _sweep(plan, workdir, settings, command, loop_options)


def _sweep(
    plan: SweepPlan,
    workdir: Path,
    settings: Mapping[str, dict[str, Any]],
    command: list[str] | None,
    loop_options: Mapping[str, Any] | None,
) -> bool:
    """`run_sweep` for the process that has locked the folder."""
    results = Results(workdir / RESULTS, [run.name for run in plan.runs])
    for run in plan.runs:
        _check_settings(workdir / run.name, settings[run.name], run.name in results)
    check_output(results.path, overwrite=True)
    seconds: list[float] = []
    left = sum(run.name not in results for run in plan.runs)
    for number, run in enumerate(plan.runs, start=1):
        head = f"run {number} of {len(plan.runs)}: {run.name}"
        if run.name in results:
            print(f"{head} is in {RESULTS}")
            continue
        rest = statistics.mean(seconds) * (left - len(seconds)) if seconds else None
        print(head if rest is None else f"{head}, about {_duration(rest)} left", flush=True)
        started = time.monotonic()
        rows = _run(run, plan, workdir / run.name, settings[run.name], command, loop_options)
        if rows is None:
            return False
        results.add(run.name, rows)
        seconds.append(time.monotonic() - started)
        _forget()
    return True


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _forget() -> None:
    """Frees what the last run compiled and read."""
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
    else:
        import tensorflow as tf

        # It keeps every Python function that tf.data has called, and with it the images (2.21).
        tf.compat.v1.reset_default_graph()
    gc.collect()  # networks refer to themselves in circles


# Settings ------------------------------------------------------------------------------------


def _check_settings(folder: Path, settings: Mapping[str, Any], finished: bool) -> None:
    """Refuses to go on with a run, or to keep the results of one, that is of other settings."""
    known = RunFile(folder).settings
    begun = finished or (folder / "checkpoints").exists()
    if not begun:
        return
    if known is None:
        raise ValueError(
            f"{folder} must hold {RunFile.NAME}, which tells the settings of run '{folder.name}'; "
            f"use another `workdir`, or delete the folder and the run's rows in {RESULTS}. "
            "Received: none"
        )
    recipe = Recipe.from_json({**known["recipe"], "data": None}).to_json()  # with newer fields
    was, now = _flat({**known, "recipe": recipe}), _flat(settings)
    other = [key for key in now if was.get(key) != now[key]]
    if not finished:  # nothing was selected that would be kept
        other = [key for key in other if key not in MEASURED]
    if not other:
        return
    rows = f"the rows of the run in {RESULTS}"
    training = any(key not in MEASURED for key in other)
    what = f"{folder} and {rows}" if training else f"{rows}, to measure the same weights,"
    raise ValueError(
        f"Run '{folder.name}' was made with another {', '.join(other)}; set it back, use another "
        f"`workdir`, or delete {what} and call again. "
        f"Received: {now[other[0]]!r}, was: {was.get(other[0])!r}"
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the recipe by name, and `data` and what is measured."""
    recipe = {k: v for k, v in settings["recipe"].items() if k != "data"}
    measured = {"select": settings["select"], "children": settings.get("children", {})}
    return json.loads(json.dumps(recipe)) | {"data": settings["data"], **measured}


# One run -------------------------------------------------------------------------------------


class TimedTrainer(Trainer):
    """A trainer that notes with each checkpoint how long the training to it took.

    What was trained after a checkpoint and lost with the process is not counted, nor is the
    time between two processes; compiling is, in each of them.
    """

    def __init__(self, file: RunFile, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._file = file
        self._earlier, self._started = file.seconds_until(self.step), time.monotonic()

    def run(self, stop_after: int | None = None) -> int:
        self._started = time.monotonic()
        return super().run(stop_after)

    def save(self) -> None:
        self._file.note(self.step, self.seconds())  # first: one too many does no harm
        super().save()

    def seconds(self) -> float:
        """Of training so far, that of earlier processes included."""
        return self._earlier + time.monotonic() - self._started


def _run(
    run: PlannedRun,
    plan: SweepPlan,
    folder: Path,
    settings: dict[str, Any],
    command: list[str] | None,
    loop_options: Mapping[str, Any] | None,
) -> list[Row] | None:
    """Trains and measures; None if the training was interrupted."""
    file = RunFile(folder)
    if file.settings and file.settings["select"] != settings["select"]:
        _drop_search(folder)
    file.begin(settings)
    status = FINISHED
    trainer = TimedTrainer(file, run.recipe, folder, command=command, loop_options=loop_options)
    try:
        trainer.run()
        seconds = file.seconds_until(trainer.step)
    except NonFiniteLossError as error:
        status = f"diverged at step {trainer.step} ({error.child})"
        seconds = trainer.seconds()
    except FloatingPointError:  # of weights, which are looked at when they are saved
        status = f"diverged at step {trainer.step} (weights)"
        seconds = trainer.seconds()
    if trainer.interrupted:
        return None
    step, data = trainer.step, trainer.data
    del trainer
    gc.collect()  # its network, before there is a second one
    children = _measure(folder, data, plan) if status == FINISHED else [{}]
    about = {
        "variant": run.variant,
        "seed": run.seed,
        "steps": step,
        "train_seconds": round(seconds, 3),
        "backend": keras.backend.backend(),
        "device": device(),
        "overrides": _compact(run.overrides),
        "recipe": run.recipe.name,
        "data": data.source.name,
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "status": status,
    }
    return [about | child for child in children]


def _drop_search(folder: Path) -> None:
    """Deletes a search for other children, whose own state would refuse to go on."""
    if (folder / "select").exists():
        shutil.rmtree(folder / "select")


def _measure(folder: Path, data: Any, plan: SweepPlan) -> list[Row]:
    """The columns that differ between the children of a run."""
    trained = load_trained(folder)
    supernet, space, test = trained.supernet, trained.supernet.space, data.source.test
    genotypes = dict(zip(ENDS, (space.biggest(), space.smallest()), strict=True))
    genotypes |= {name: space.genotype(values) for name, values in plan.children.items()}
    held_out = {}
    if data.held_out is not None:
        evaluator = child_evaluator(supernet, data.calibration, data.held_out)
        for name, score in zip(genotypes, evaluator.score([*genotypes.values()]), strict=True):
            held_out[name] = score["accuracy"]
        if plan.select:
            for chosen in search_run(trained, data, plan.select, folder, evaluator=evaluator):
                genotypes[chosen["name"]] = space.genotype(chosen["genotype"])
                held_out[chosen["name"]] = chosen["accuracy"]
    evaluator = child_evaluator(supernet, data.calibration, test, split="test")
    biggest = space.canonical(space.biggest())  # whose own statistics are calibrated
    found: dict[Any, dict[str, np.ndarray]] = {}  # top classes by how they were calibrated
    rows, predictions = [], {"labels": test.labels}
    for name, genotype in genotypes.items():
        key = space.canonical(genotype)
        if key not in found:  # one child may be the best under two budgets
            found[key] = {"top1": evaluator.logits(genotype).argmax(-1)}
            if key != biggest:
                stale = evaluator.logits(genotype, donor=biggest)
                found[key]["top1_uncalibrated"] = stale.argmax(-1)
        shares = {k: float((chosen == test.labels).mean()) for k, chosen in found[key].items()}
        top1 = shares["top1"]
        predictions[name] = found[key]["top1"].astype(np.int32)
        low, high = wilson_interval(top1, len(test))
        counted = cost.count(genotype.spec())
        rows.append(
            {
                "child": name,
                "top1": top1,
                "top1_low": low,
                "top1_high": high,
                "top1_uncalibrated": shares.get("top1_uncalibrated", ""),
                "test_images": len(test),
                "held_out_top1": held_out.get(name, ""),
                "mmacs": counted.mmacs,
                "params_m": counted.params_m,
                "resolution": genotype.spec().input_shape[0],
                "genotype": _compact(genotype.as_dict()),
            }
        )
    with replacing(folder / PREDICTIONS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **predictions)
    return rows


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
