"""Training runs: data, checkpoints, logs and the progress bar around a loop."""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.data.batches import BatchPlan
from bignas_tf.files import only_writer, read_json
from bignas_tf.spaces import Space
from bignas_tf.supernet import Supernet
from bignas_tf.terminal import say
from bignas_tf.training.interruptions import Interruptions
from bignas_tf.training.logs import LOG_EVERY, RunLogs, resumed_record, run_record, write_record
from bignas_tf.training.loop import NonFiniteLossError, WorkerLostError, loop_class
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.recipe import POLICIES, Recipe
from bignas_tf.training.rule import Rule, SandwichRule
from bignas_tf.training.run_checkpoints import RunCheckpoints, writable_folder
from bignas_tf.training.run_data import list_bad_images, load_run_data
from bignas_tf.training.schedules import build_schedule
from bignas_tf.training.state import averaged, initialize_from, teacher_from

ACCURACY = "accuracy/"  # and the name of the child, in logs
PATIENCE = 60.0  # seconds that a worker which lost another waits for those that save before it


class Trainer:
    """One training run in a folder; starts or resumes it.

    Args:
        recipe: every hyper-parameter.
        workdir: folder of the run: checkpoints/, log.jsonl, tensorboard/, run.json.
        data: source that replaces the recipe's.
        command: recorded in run.json.
        loop_options: of the backend's loop, such as `steps_per_call` or the `strategy` of
            `TensorflowLoop`; and `synchronized`, of `Supernet`.
        make_rule: makes a rule of your own of the space; by default it is the sandwich rule
            with the recipe's options.

    Attributes:
        step: steps made since the start of the run.
        total_steps: of the recipe.
        interrupted: number of the signal that stopped the last `run`; None for none.
        data: the recipe's images.
        supernet: that is trained; `loop.publish` brings its weights up to date.

    Raises:
        CheckpointError: if the folder holds a run of another space, recipe or data.
        DataError: for bad data.
        RuntimeError: if another worker is lost while all of them start.
    """

    def __init__(
        self,
        recipe: Recipe,
        workdir: str | Path,
        *,
        data: str | None = None,
        command: list[str] | None = None,
        loop_options: Mapping[str, Any] | None = None,
        make_rule: Callable[[Space], Rule] | None = None,
    ):
        self.recipe = recipe
        # Refused before images are read, which may take minutes.
        build_schedule(recipe.schedule, 1, recipe.epochs)
        build_optimizer(recipe.optimizer, 1.0, recipe.ema)
        self.workdir = writable_folder(workdir)
        self.data = load_run_data(recipe, data)
        self.space = recipe.build_space(len(self.data.source.classes))
        self.plan = BatchPlan(
            self.data.train, batch_size=recipe.batch_size, policy=recipe.policy(), seed=recipe.seed
        )
        self.total_steps = self.plan.steps_per_epoch * recipe.epochs
        teacher = (
            teacher_from(recipe.teacher, self.data.calibration, self.data.source.classes)
            if recipe.teacher
            else None
        )
        rule = make_rule(self.space) if make_rule else _sandwich(self.space, recipe, teacher)
        self._build(rule, dict(loop_options or {}))
        if recipe.evaluate_every and self.data.held_out is not None:
            self.loop.require_shares(self.data.calibration, self.data.held_out)
        self.interrupted: int | None = None  # the signal that stopped it
        self._saved = time.monotonic()
        self.checkpoints = RunCheckpoints(
            self.workdir,
            self.supernet,
            self.optimizer,
            recipe,
            self.data,
            self.plan,
            teacher=teacher.source if teacher else None,
        )
        self.step = self.checkpoints.restore()
        self.recipe = self.checkpoints.recipe
        if not self.step and recipe.init_from:
            initialize_from(self.supernet, recipe.init_from)
        self._chief = self.loop.worker == 0
        self._command: list[str] | None = command or sys.argv

    def _build(self, rule: Rule, options: dict[str, Any]) -> None:
        """Makes the network, its optimizer and the loop, whose workers do it together."""
        recipe, strategy = self.recipe, options.get("strategy")
        with _scope(strategy):  # variables are mirrored where they are made
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
            self.loop = loop_class()(
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

    def _record(self, command: list[str]) -> None:
        """Writes run.json; a resumed run keeps the record of how it was started."""
        path = self.workdir / "run.json"
        record = run_record(command, {"run": self.recipe.seed}, self.recipe.to_json())
        record["rule"] = self.loop.rule.config()
        record["loop"] = self.loop.describe()
        if self.step and path.is_file():
            resumed = resumed_record(read_json(path), record, self.step)
            write_record(path, {**resumed, "recipe": record["recipe"]})
            return
        record["data"] = self.data.describe()
        write_record(path, record)

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
            FolderInUse: if another process trains into the folder, or has meanwhile.
        """
        last = min(self.total_steps, stop_after or self.total_steps)
        chunks = self._begin(last)
        steps_made = self.step, self.total_steps
        with (
            self._locked(),
            Interruptions() as interrupted,
            RunLogs(self.workdir, self.recipe.name, *steps_made, not self._chief) as logs,
        ):
            sound = True
            try:
                if self._owes_evaluation(logs):
                    self._end_epoch(logs)
                mark, mark_time = self.step, time.monotonic()
                while self.step < last:
                    if interrupted():
                        self.loop.stop()
                    if self.loop.stopped:
                        break
                    chunk = next(chunks)
                    sound = False  # a step cut short may have changed some weights only
                    steps = self.loop.train(chunk, self.step)
                    now = time.monotonic()
                    end = self.step + len(steps)
                    speed = (end - mark) * self.recipe.batch_size / (now - mark_time)
                    finite = list(itertools.takewhile(_is_finite, steps))
                    self.step += len(finite)  # before they are shown, which may fail
                    sound = self.step == end
                    if self._show(logs, finite, speed, last):
                        mark, mark_time = end, now
                    if not sound:
                        raise self._non_finite(steps[len(finite)])
                    pause = time.monotonic()
                    self._save_in_time()
                    self._end_epoch(logs)
                    mark_time += time.monotonic() - pause  # the speed is that of training
            except WorkerLostError as error:
                self.step, sound = error.step, False
                if error.consistent:
                    self._save_for_a_lost_worker()
                raise
            finally:
                if sound:
                    self._keep()
        self.interrupted = interrupted.signal
        return self.step

    def _begin(self, last: int) -> Iterator[Any]:
        """What the loop trains on up to a step, once all workers are known to start alike."""
        self.loop.start()
        self.loop.require_alike({"step": self.step, **self.checkpoints.checksums()})
        return self.loop.chunks(self.plan, self.step, last)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the folder, which must be as it was restored; the chief records the run in it."""
        if not self._chief:
            yield
            return
        with self.checkpoints.held():
            if self._command is not None:
                self._record(self._command)
                self._command = None  # said once
            yield

    def save(self) -> None:
        """Writes a checkpoint of the present step, unless there is one."""
        if self.step == self.checkpoints.saved:
            return
        self.loop.publish()
        self.checkpoints.save(self.step)

    def _keep(self) -> None:
        """The first worker saves; each lists the bad images that it has met."""
        if self._chief:
            self.save()
        try:
            line = list_bad_images(self.data.source, self.workdir, self.loop.worker)
        except OSError as error:  # what is trained goes on without the list
            line = f"bad images are not listed: {error}"
        if line:
            say(f"\n{line}", error=True)

    def _save_in_time(self) -> None:
        every = self.plan.steps_per_epoch * self.recipe.checkpoint_every
        minutes = (time.monotonic() - self._saved) / 60
        late = self.recipe.checkpoint_minutes and minutes >= self.recipe.checkpoint_minutes
        if self.step % every == 0 or late:
            self._keep()
            self._saved = time.monotonic()

    def _save_for_a_lost_worker(self) -> None:
        """Saves unless another worker has: one after the other, as nobody knows who is left."""
        waits = only_writer(self.workdir, "trained into", patience=PATIENCE)
        try:
            with contextlib.nullcontext() if self._chief else waits:  # the chief holds the lock
                newest = self.checkpoints.newest()
                if newest is None or newest < self.step:
                    self.save()
        except (OSError, ValueError, FloatingPointError) as error:  # the lost one matters
            say(f"\n{error}", error=True)

    def _non_finite(self, losses: dict[str, float]) -> NonFiniteLossError:
        """What is wrong with the losses of the step after the present one."""
        name, value = next(item for item in losses.items() if not math.isfinite(item[1]))
        terms = self.loop.rule.plan(self.recipe.seed, self.step)
        (term,) = [term for term in terms if term.name == name]
        genotype = None if term.recurs else term.genotype
        return NonFiniteLossError(name, value, self.step, genotype)

    def _show(
        self, logs: RunLogs, steps: Sequence[dict[str, float]], speed: float, last: int
    ) -> bool:
        """Logs those that are due of the steps just made, and says whether there were any."""
        first = self.step - len(steps) + 1
        numbers = [n for n in range(first, self.step + 1) if n % LOG_EVERY == 0 or n == last]
        for number in numbers:
            self._log(logs, number, steps[number - first], speed)
        logs.bar.update(len(steps))
        return bool(numbers)

    def _log(self, logs: RunLogs, step: int, losses: dict[str, float], speed: float) -> None:
        values = {
            "loss": sum(losses.values()),
            **{f"loss/{name}": value for name, value in losses.items()},
            "learning_rate": float(self.schedule(step - 1)),
            "images_per_second": speed,
        }
        epoch = step / self.plan.steps_per_epoch
        logs.write(step, epoch, values)
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        postfix = {"epoch": f"{epoch:.1f}", "img/s": f"{speed:.0f}", **shown}
        logs.bar.set_postfix(postfix, refresh=False)

    def _evaluates(self) -> bool:
        """Whether the recipe asks for an evaluation after the present step."""
        every = self.recipe.evaluate_every * self.plan.steps_per_epoch
        return bool(every) and self.step % every == 0

    def _owes_evaluation(self, logs: RunLogs) -> bool:
        """Whether the run was stopped between the checkpoint of a step and its evaluation."""
        if not (self.step and self._evaluates()):
            return False
        owes = not any(name.startswith(ACCURACY) for name in logs.logged)
        return bool(self.loop.gather(np.asarray([float(owes)]))[0, 0])  # it is the chief who logs

    def _end_epoch(self, logs: RunLogs) -> None:
        """Evaluates the biggest and the smallest child, where the recipe asks for it."""
        if not self._evaluates() or self.data.held_out is None:
            return
        epoch = self.step // self.plan.steps_per_epoch
        self.loop.publish()
        with averaged(self.supernet, self.optimizer):
            evaluator = self.loop.evaluator(self.data.calibration, self.data.held_out)
        ends = {"biggest": self.space.biggest(), "smallest": self.space.smallest()}
        scores = evaluator.score(list(ends.values()))
        values = {ACCURACY + name: s["accuracy"] for name, s in zip(ends, scores, strict=True)}
        if self._chief:
            self.checkpoints.save_best(self.step, sum(values.values()) / len(values))
        logs.write(self.step, epoch, values)
        shown = ", ".join(f"{name} {value:.2%}" for name, value in values.items())
        logs.say(f"epoch {epoch}: {shown} (held-out training images, calibrated)")


def _sandwich(space: Space, recipe: Recipe, teacher: Any) -> SandwichRule:
    fields = ("random_children", "label_smoothing", "distillation", "regularize", "sandwich")
    return SandwichRule(space, **{f: getattr(recipe, f) for f in fields}, teacher=teacher)


def _is_finite(losses: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, losses.values()))


def _scope(strategy: Any) -> Any:
    if strategy is None:
        return contextlib.nullcontext()
    from bignas_tf.training.layout import building

    return building(strategy)
