"""Training runs: data, checkpoints, logs and the progress bar around a loop."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from bignas_tf.data.batches import BatchPlan
from bignas_tf.spaces import MBConvSpace
from bignas_tf.supernet import Supernet
from bignas_tf.training.checkpoints import CheckpointError, CheckpointManager
from bignas_tf.training.interruptions import Interruptions
from bignas_tf.training.logs import RunLogs, run_record, write_json
from bignas_tf.training.loop import WorkerLostError
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.recipe import POLICIES, Recipe
from bignas_tf.training.rule import Rule, SandwichRule
from bignas_tf.training.run_data import list_bad_images, load_run_data
from bignas_tf.training.schedules import build_schedule
from bignas_tf.training.state import (
    averaged,
    initialize_from,
    pack,
    require_run,
    teacher_from,
    unpack,
)

LOG_EVERY = 10
# What may differ when a run is resumed: how long it runs and how often it looks.
RESUMABLE = (
    "epochs", "data", "on_bad_image", "evaluate_every", "checkpoint_every", "calibration_images",
)  # fmt: skip


class NonFiniteLossError(ArithmeticError):
    """A loss became infinite or NaN.

    Args:
        child: name of its term.
        value: of the loss.
        step: int.
    """

    def __init__(self, child: str, value: float, step: int):
        super().__init__(
            f"The loss of the {child} child is {value} at step {step}; the last checkpoint is "
            "kept. Lower the learning rate or lengthen its warm-up"
        )
        self.child = child


class Trainer:
    """One training run in a folder; starts or resumes it.

    Args:
        recipe: every hyper-parameter.
        workdir: folder of the run: checkpoints/, log.jsonl, tensorboard/, run.json.
        data: source that replaces the recipe's.
        command: recorded in run.json.
        loop_options: of the backend's loop, such as `steps_per_call` or the `strategy` of
            `TensorflowLoop`; and `synchronized`, of `Supernet`.

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
        command: list[str] | None = None,
        loop_options: Mapping[str, Any] | None = None,
    ):
        options = dict(loop_options or {})
        strategy = options.get("strategy")
        self.recipe = recipe
        self.workdir = _writable_folder(workdir)
        self.manager = CheckpointManager(self.workdir / "checkpoints")
        self.data = load_run_data(recipe, data)
        self.space = recipe.build_space(len(self.data.source.classes))
        self.plan = BatchPlan(
            self.data.train, batch_size=recipe.batch_size, policy=recipe.policy(), seed=recipe.seed
        )
        self.total_steps = self.plan.steps_per_epoch * recipe.epochs
        scope = strategy.scope() if strategy else contextlib.nullcontext()
        with scope:  # variables are mirrored where they are made
            self.supernet = Supernet(
                self.space,
                seed=recipe.seed,
                zero_gamma=recipe.zero_gamma,
                synchronized=options.pop("synchronized", True),
                dtype=POLICIES[recipe.precision],
            )
            self.schedule = build_schedule(
                recipe.schedule, self.plan.steps_per_epoch, recipe.epochs
            )
            self.optimizer = build_optimizer(recipe.optimizer, self.schedule, recipe.ema)
        teacher = recipe.teacher and teacher_from(recipe.teacher, self.data.calibration)
        options_of_rule = ("random_children", "label_smoothing", "distillation", "regularize")
        rule = SandwichRule(
            self.space,
            **{option: getattr(recipe, option) for option in (*options_of_rule, "sandwich")},
            teacher=teacher or None,
        )
        self.loop = _loop_class()(
            self.supernet,
            rule,
            self.optimizer,
            batch_size=recipe.batch_size,
            weight_decay=recipe.weight_decay,
            clip_norm=recipe.clip_norm,
            clip_value=recipe.clip_value,
            seed=recipe.seed,
            **options,
        )
        self.interrupted: int | None = None  # the signal that stopped it
        self._score: float | None = None  # of the present weights
        self.step = self._restore()
        if not self.step and recipe.init_from:
            initialize_from(self.supernet, recipe.init_from)
        if self.loop.is_chief:
            self._record(command or sys.argv, rule)

    def _record(self, command: list[str], rule: Rule) -> None:
        """Writes run.json; a resumed run keeps the record of how it was started."""
        path = self.workdir / "run.json"
        record = run_record(command, {"run": self.recipe.seed}, self.recipe.to_json())
        if self.step and path.is_file():
            first = json.loads(path.read_text(encoding="utf-8"))
            kept = ("started", "command", "versions", "threads", "machine")
            again = {key: record[key] for key in kept}
            again["loop"] = self.loop.describe()
            resumed = [*first.get("resumed", []), {"step": self.step, **again}]
            write_json(path, {**first, "recipe": record["recipe"], "resumed": resumed})
            return
        record["rule"] = rule.config()
        record["loop"] = self.loop.describe()
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
            **({} if self._score is None else {"score": self._score}),
        }

    def save(self) -> Path:
        """Writes a checkpoint of the present step."""
        self.loop.publish()
        if line := list_bad_images(self.data.source, self.workdir):
            print(f"\n{line}", file=sys.stderr)
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
            WorkerLostError: if another worker is lost; a checkpoint is saved if it can be.
            BrokenImageError: if an image cannot be read; a checkpoint is saved first.
        """
        last = min(self.total_steps, stop_after or self.total_steps)
        chunks = self.loop.chunks(self.plan, self.step, last)
        every = self.plan.steps_per_epoch * self.recipe.checkpoint_every
        logs = RunLogs(
            self.workdir, self.recipe.name, self.step, self.total_steps, not self.loop.is_chief
        )
        with Interruptions() as interrupted, logs:
            sound, saves = True, self.loop.is_chief
            try:
                mark, mark_time = self.step, time.monotonic()
                while self.step < last and not self.loop.stopped:
                    if interrupted():
                        self.loop.stop()
                        continue
                    chunk = next(chunks)
                    sound = False  # a step cut short may have changed some weights only
                    steps = self.loop.train(chunk, self.step)
                    now = time.monotonic()
                    end = self.step + len(steps)
                    rate = (end - mark) * self.recipe.batch_size / (now - mark_time)
                    for losses in steps:
                        _check_finite(losses, self.step)
                        self.step += 1
                        logs.bar.update()
                        if self.step % LOG_EVERY == 0 or self.step == last:
                            self._log(logs, losses, rate)
                            mark, mark_time = end, now
                    sound = True
                    pause = time.monotonic()
                    self._score = None
                    if self.step % self.plan.steps_per_epoch == 0:
                        self._end_epoch(logs)
                    if saves and (self.step % every == 0 or self._score is not None):
                        self.save()
                    mark_time += time.monotonic() - pause  # the rate is that of training
            except WorkerLostError as error:
                self.step, sound, saves = error.step, error.consistent, True
                raise
            finally:
                if sound and saves and self._unsaved():
                    self.save()
        self.interrupted = interrupted.signal
        return self.step

    def _unsaved(self) -> bool:
        latest = self.manager.latest()
        return latest is None or latest.stem != f"step_{self.step:08d}"

    def _log(self, logs: RunLogs, losses: dict[str, float], rate: float) -> None:
        values = {
            "loss": sum(losses.values()),
            **{f"loss/{name}": value for name, value in losses.items()},
            "learning_rate": float(self.schedule(self.step - 1)),
            "images_per_second": rate,
        }
        epoch = self.step / self.plan.steps_per_epoch
        logs.write(self.step, epoch, values)
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        postfix = {"epoch": f"{epoch:.1f}", "img/s": f"{rate:.0f}", **shown}
        logs.bar.set_postfix(postfix, refresh=False)

    def _end_epoch(self, logs: RunLogs) -> None:
        """Evaluates the biggest and the smallest child, where the recipe asks for it."""
        epoch = self.step // self.plan.steps_per_epoch
        every = self.recipe.evaluate_every
        if not every or epoch % every or self.data.held_out is None:
            return
        self.loop.publish()
        with averaged(self.supernet, self.optimizer):
            evaluator = self.loop.evaluator(self.data.calibration, self.data.held_out)
        ends = {"biggest": self.space.biggest(), "smallest": self.space.smallest()}
        scores = evaluator.score(list(ends.values()))
        values = {f"accuracy/{name}": s["accuracy"] for name, s in zip(ends, scores, strict=True)}
        self._score = sum(values.values()) / len(values)
        logs.write(self.step, epoch, values)
        shown = ", ".join(f"{name} {value:.2%}" for name, value in values.items())
        logs.say(f"epoch {epoch}: {shown} (held-out training images, calibrated)")


def _loop_class() -> Any:
    """The loop of Keras's backend."""
    if keras.backend.backend() == "jax":
        from bignas_tf.training.jax_loop import JaxLoop

        return JaxLoop
    from bignas_tf.training.tensorflow_loop import TensorflowLoop

    return TensorflowLoop


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
            raise NonFiniteLossError(name, value, step)
