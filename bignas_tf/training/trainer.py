"""Training runs: data, checkpoints, logs and the progress bar around a loop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import tqdm

from bignas_tf.data import DataError, Source, Split, hold_out, load_source
from bignas_tf.data.augmentation import epoch_order
from bignas_tf.data.batches import BatchPlan
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.spaces import MBConvSpace, get_space
from bignas_tf.supernet import Supernet
from bignas_tf.training.checkpoints import CheckpointError, CheckpointManager
from bignas_tf.training.interruptions import Interruptions
from bignas_tf.training.logs import JsonlLog, ScalarLog, run_record, write_json
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.rule import Rule, SandwichRule
from bignas_tf.training.schedules import build_schedule
from bignas_tf.training.state import initialize_from, pack, require_run, unpack

# Draws of held-out and calibration images never change with a run's seed, so that runs
# of several seeds are compared on the same images.
SPLIT_SEED = 0
LOG_EVERY = 10
# What may differ when a run is resumed: how long it runs and how often it looks.
RESUMABLE = ("epochs", "data", "evaluate_every", "checkpoint_every", "calibration_images")


class NonFiniteLossError(ArithmeticError):
    """A loss became infinite or NaN; names step and child."""


@dataclasses.dataclass(frozen=True)
class RunData:
    """A source as a run uses it.

    Attributes:
        source: as loaded.
        train: images to train on.
        held_out: training images for selection; empty if the recipe holds out none.
        calibration: images of `train` for batch-norm statistics.
    """

    source: Source
    train: Split
    held_out: Split | None
    calibration: Split


def load_run_data(recipe: Recipe, data: str | None = None) -> RunData:
    """Loads a recipe's source and splits it as every command of the run does.

    Raises:
        DataError: for bad data.
        ValueError: if no source is given.
    """
    name = data or recipe.data
    if name is None:
        raise ValueError(
            f"`data` must be given for recipe '{recipe.name}', such as folder:PATH. Received: None"
        )
    space = get_space(recipe.space)
    source = load_source(name, image_size=recipe.image_size, channels=space.input_channels)
    train, held_out = source.train, None
    if recipe.held_out:
        most = len(train) - len(source.classes)
        if recipe.held_out > most:
            raise DataError(
                f"`held_out` of recipe '{recipe.name}' must leave {name} an image of each class, "
                f"so be at most {most}. Received: {recipe.held_out}"
            )
        train, held_out = hold_out(train, recipe.held_out, SPLIT_SEED)
    calibration = train
    if recipe.calibration_images < len(train) - len(source.classes):
        calibration = hold_out(train, recipe.calibration_images, SPLIT_SEED + 1)[1]
    # Folders are sorted by class; statistics of a batch should be those of all classes.
    calibration = calibration.take(epoch_order(len(calibration), SPLIT_SEED, 0))
    return RunData(source, train, held_out, calibration)


class Trainer:
    """One training run in a folder; starts or resumes it.

    Args:
        recipe: every hyper-parameter.
        workdir: folder of the run: checkpoints/, log.jsonl, tensorboard/, run.json.
        data: source that replaces the recipe's.
        init_from: checkpoint or run folder to start the weights from.
        command: recorded in run.json.
        strategy: a `tf.distribute.Strategy`, or None for one device.

    Raises:
        CheckpointError: if the folder holds a run of another space, recipe or data.
        DataError: for bad data.
    """

    def __init__(
        self,
        recipe: Recipe,
        workdir: str | Path,
        *,
        data: str | None = None,
        init_from: str | Path | None = None,
        command: list[str] | None = None,
        strategy: Any = None,
    ):
        from bignas_tf.training.tensorflow_loop import TensorflowLoop

        self.recipe = recipe
        self.workdir = _writable_folder(workdir)
        self.manager = CheckpointManager(self.workdir / "checkpoints")
        self.data = load_run_data(recipe, data)
        self.space = get_space(recipe.space, classes=len(self.data.source.classes))
        self.plan = BatchPlan(
            self.data.train, batch_size=recipe.batch_size, policy=recipe.policy(), seed=recipe.seed
        )
        self.total_steps = self.plan.steps_per_epoch * recipe.epochs
        scope = strategy.scope() if strategy else contextlib.nullcontext()
        with scope:  # variables are mirrored where they are made
            self.supernet = Supernet(self.space, seed=recipe.seed, zero_gamma=recipe.zero_gamma)
            self.schedule = build_schedule(
                recipe.schedule, self.plan.steps_per_epoch, recipe.epochs
            )
            self.optimizer = build_optimizer(recipe.optimizer, self.schedule)
        if init_from is not None:
            initialize_from(self.supernet, init_from)
        rule = SandwichRule(
            self.space,
            recipe.random_children,
            recipe.label_smoothing,
            recipe.distillation,
            recipe.regularize,
        )
        self.loop = TensorflowLoop(
            self.supernet,
            rule,
            self.optimizer,
            batch_size=recipe.batch_size,
            weight_decay=recipe.weight_decay,
            seed=recipe.seed,
            strategy=strategy,
        )
        self.interrupted = False
        self.step = self._restore()
        self._record(command or sys.argv, rule)

    def _record(self, command: list[str], rule: Rule) -> None:
        """Writes run.json; a resumed run keeps the record of how it was started."""
        path = self.workdir / "run.json"
        record = run_record(command, {"run": self.recipe.seed}, self.recipe.to_json())
        if self.step and path.is_file():
            first = json.loads(path.read_text(encoding="utf-8"))
            again = {key: record[key] for key in ("started", "command", "versions", "threads")}
            resumed = [*first.get("resumed", []), {"step": self.step, **again}]
            write_json(path, {**first, "recipe": record["recipe"], "resumed": resumed})
            return
        record["rule"] = rule.config()
        record["data"] = {
            "source": self.data.source.name,
            "fingerprint": self.data.source.fingerprint,
            "train": len(self.data.train),
            "held_out": len(self.data.held_out) if self.data.held_out else 0,
            "test": len(self.data.source.test),
        }
        write_json(path, record)

    # Checkpoints -----------------------------------------------------------------------

    def _metadata(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "recipe": self.recipe.to_json(),
            "space": self.space.config(),
            "classes": list(self.data.source.classes),
            "data": self.data.source.name,
            "fingerprint": self.data.source.fingerprint,
            "steps_per_epoch": self.plan.steps_per_epoch,
        }

    def save(self) -> Path:
        """Writes a checkpoint of the present step."""
        return self.manager.save(self.step, pack(self.supernet, self.optimizer), self._metadata())

    def _restore(self) -> int:
        restored = self.manager.restore_latest()
        if restored is None:
            return 0
        metadata = restored.metadata
        require_run(restored.path, metadata)
        _check_same("space", metadata["space"]["name"], self.space.name, self.workdir)
        _check_same("classes", metadata["classes"], list(self.data.source.classes), self.workdir)
        # A space may have been redefined under its name, with weights of the same shapes.
        was, now = MBConvSpace.from_config(metadata["space"]).config(), self.space.config()
        for field in now:
            what = f"`{field}` of space '{self.space.name}'"
            _check_same(what, was[field], now[field], self.workdir)
        _check_same(
            "data fingerprint",
            metadata["fingerprint"],
            self.data.source.fingerprint,
            self.workdir,
        )
        old, new = Recipe.from_json(metadata["recipe"]).to_json(), self.recipe.to_json()
        for field in old:
            if field not in RESUMABLE:
                _check_same(field, old[field], new[field], self.workdir)
        unpack(self.supernet, self.optimizer, restored.arrays)
        return restored.step

    # The loop ----------------------------------------------------------------------------

    def run(self, stop_after: int | None = None) -> int:
        """Trains to the end of the recipe; on Ctrl-C or SIGTERM saves and stops.

        Args:
            stop_after: int, last step of this call, for tests; None for all.

        Returns:
            Steps made since the start of the run.

        Raises:
            NonFiniteLossError: if a loss is not finite; the last checkpoint stays.
            BrokenImageError: if an image cannot be read; a checkpoint is saved first.
        """
        from bignas_tf.data.pipeline import TrainingBatches

        last = min(self.total_steps, stop_after or self.total_steps)
        batches = TrainingBatches(self.plan, self.step)
        every = self.plan.steps_per_epoch * self.recipe.checkpoint_every
        log = JsonlLog(self.workdir / "log.jsonl", resume_step=self.step)
        scalars = ScalarLog(self.workdir / "tensorboard")
        bar = tqdm.tqdm(
            total=self.total_steps, initial=self.step, unit="step", desc=self.recipe.name
        )
        with Interruptions() as interrupted, log, bar:
            sound = True
            try:
                mark, mark_time = self.step, time.monotonic()
                while self.step < last and not interrupted():
                    batch = next(batches)
                    sound = False  # a step cut short may have changed some weights only
                    losses = self.loop.step(batch, self.step)
                    _check_finite(losses, self.step)
                    self.step += 1
                    sound = True
                    bar.update()
                    if self.step % LOG_EVERY == 0 or self.step == last:
                        now = time.monotonic()
                        rate = (self.step - mark) * self.recipe.batch_size / (now - mark_time)
                        self._log(log, scalars, bar, losses, rate)
                        mark, mark_time = self.step, now
                    pause = time.monotonic()
                    if self.step % self.plan.steps_per_epoch == 0:
                        self._end_epoch(log, scalars, bar)
                    if self.step % every == 0:
                        self.save()
                    mark_time += time.monotonic() - pause  # the rate is that of training
            finally:
                scalars.close()
                if sound and self._unsaved():
                    self.save()
        self.interrupted = interrupted()
        return self.step

    def _unsaved(self) -> bool:
        latest = self.manager.latest()
        return latest is None or latest.stem != f"step_{self.step:08d}"

    def _log(
        self, log: JsonlLog, scalars: ScalarLog, bar: Any, losses: dict[str, float], rate: float
    ) -> None:
        values = {
            "loss": sum(losses.values()),
            **{f"loss/{name}": value for name, value in losses.items()},
            "learning_rate": float(self.schedule(self.step - 1)),
            "images_per_second": rate,
        }
        epoch = self.step / self.plan.steps_per_epoch
        log.write({"step": self.step, "epoch": epoch, **values})
        scalars.write(self.step, values)
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        bar.set_postfix({"epoch": f"{epoch:.1f}", "img/s": f"{rate:.0f}", **shown}, refresh=False)

    def _end_epoch(self, log: JsonlLog, scalars: ScalarLog, bar: Any) -> None:
        """Evaluates the biggest and the smallest child, where the recipe asks for it."""
        epoch = self.step // self.plan.steps_per_epoch
        every = self.recipe.evaluate_every
        if not every or epoch % every or self.data.held_out is None:
            return
        evaluator = ChildEvaluator(self.supernet, self.data.calibration, self.data.held_out)
        ends = {"biggest": self.space.biggest(), "smallest": self.space.smallest()}
        scores = evaluator.score(list(ends.values()))
        values = {f"accuracy/{name}": s["accuracy"] for name, s in zip(ends, scores, strict=True)}
        log.write({"step": self.step, "epoch": epoch, **values})
        scalars.write(self.step, values)
        shown = ", ".join(f"{name} {value:.2%}" for name, value in values.items())
        bar.write(f"epoch {epoch}: {shown} (held-out training images, calibrated)")


def _writable_folder(workdir: str | Path) -> Path:
    folder = Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"`workdir` must be a folder that can be written to ({error.strerror}). "
            f"Received: {workdir}"
        ) from error
    return folder


def _check_same(what: str, old: Any, new: Any, workdir: Path) -> None:
    if old != new:
        raise CheckpointError(
            f"The run in {workdir} was started with another {what}; use another `workdir` or the "
            f"same {what}. Received: {new!r}, was: {old!r}"
        )


def _check_finite(losses: dict[str, float], step: int) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"The loss of the {name} child is {value} at step {step}; the last checkpoint is "
                "kept. Lower the learning rate or lengthen its warm-up"
            )
