"""Finetuning of one finished network: loop, checkpoints, log."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bignas_tf.data.batches import BatchPlan
from bignas_tf.data.pipeline import TrainingBatches
from bignas_tf.files import read_json
from bignas_tf.resize import resize, to_input_range
from bignas_tf.training.checkpoints import CheckpointError, CheckpointManager
from bignas_tf.training.finetune_settings import FinetuneSettings
from bignas_tf.training.interruptions import Interruptions
from bignas_tf.training.logs import (
    LOG_EVERY,
    Bar,
    JsonlLog,
    resumed_record,
    run_record,
    write_record,
)
from bignas_tf.training.loop import NonFiniteLossError
from bignas_tf.training.losses import label_cross_entropy, mixed_targets
from bignas_tf.training.run_checkpoints import held_unchanged
from bignas_tf.training.schedules import build_schedule


class Finetuner:
    """Finetunes one network in a folder; starts or resumes it.

    Args:
        network: a `bignas_tf.deploy.finetuning.tfmot.Finetunable`.
        plan: which augmented examples each step trains on.
        settings: how.
        folder: of checkpoints/, log.jsonl and run.json.
        origin: plain JSON that tells child and images apart from others.
        command: recorded in run.json.

    Attributes:
        step: steps made so far.
        interrupted: whether the last `run` was stopped by Ctrl-C or SIGTERM.

    Raises:
        CheckpointError: if the folder holds the finetuning of something else.
    """

    def __init__(
        self,
        network: Any,
        plan: BatchPlan,
        settings: FinetuneSettings,
        folder: Path,
        origin: Mapping[str, Any],
        command: list[str],
    ):
        import tf_keras

        self.network = network
        self.settings = settings
        self.folder = folder
        self.total_steps = settings.steps(plan.steps_per_epoch)
        self.interrupted = False
        self._plan = plan
        self._resolution = network.model.inputs[0].shape[1]
        self._classes = network.model.outputs[0].shape[-1]
        self._variables = network.model.trainable_variables
        self._schedule = build_schedule(
            {"kind": "cosine", "initial": settings.learning_rate}, 1, self.total_steps
        )
        self._optimizer = tf_keras.optimizers.Adam(settings.learning_rate)
        self._optimizer.build(self._variables)
        self._train = tf.function(self._train_step, autograph=False)
        self._manager = CheckpointManager(folder / "checkpoints", keep=2)
        self._identity = {"finetune": settings.to_json(), "origin": dict(origin)}
        self._seen = self._manager.paths()
        self.step = self._restore()
        self._command: list[str] | None = command
        network.start()

    def _record(self, command: list[str]) -> None:
        """Writes run.json; a resumed run keeps the record of how it was started."""
        path = self.folder / "run.json"
        record = run_record(command, {"finetune": self.settings.seed or 0}, {}) | self._identity
        if self.step and path.is_file():
            record = resumed_record(read_json(path), record, self.step)
        write_record(path, record)

    def _state(self) -> dict[str, Any]:
        """Every variable under a name that any process repeats: wrappers number theirs."""
        parts = {"weights": self.network.model.weights, "optimizer": self._optimizer.variables}
        return {
            f"{part}/{index:04d}": variable
            for part, variables in parts.items()
            for index, variable in enumerate(variables)
        }

    def _save(self) -> None:
        arrays = {name: variable.numpy() for name, variable in self._state().items()}
        self._manager.save(self.step, arrays, self._identity)
        self._seen = self._manager.paths()

    def _restore(self) -> int:
        restored = self._manager.restore_latest()
        if restored is None:
            return 0
        wanted = json.loads(json.dumps(self._identity))
        for part, now in wanted.items():
            was = restored.metadata.get(part, {})
            for name in {**was, **now}:
                _check_same(name, was.get(name), now.get(name), self.folder)
        state = self._state()
        shapes = {name: tuple(variable.shape) for name, variable in state.items()}
        if shapes != {name: array.shape for name, array in restored.arrays.items()}:
            raise CheckpointError(f"{restored.path} is that of another network or version of TFMOT")
        for name, variable in state.items():
            variable.assign(restored.arrays[name])
        return restored.step

    def _train_step(self, images: Any, labels: Any, rate: Any) -> Any:
        images = resize(to_input_range(images), self._resolution)
        smoothing = self.settings.label_smoothing or 0.0
        with tf.GradientTape() as tape:
            logits = self.network.model(images, training=True)
            losses = label_cross_entropy(labels, logits, smoothing)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self._variables)
        self._optimizer.learning_rate.assign(rate)
        self._optimizer.apply_gradients(zip(gradients, self._variables, strict=True))
        return loss

    def run(self, stop_after: int | None = None) -> int:
        """Trains to the end; on Ctrl-C or SIGTERM saves and stops.

        Args:
            stop_after: int, last step of this call, for tests; None for all.

        Returns:
            Steps made since the start.

        Raises:
            NonFiniteLossError: if the loss is not finite; the last checkpoint stays.
            BrokenImageError: if an image cannot be read; a checkpoint is saved first.
            FolderInUse: if another process finetunes into the folder, or has meanwhile.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with held_unchanged(self.folder, self._manager, self._seen, "finetuned into", "folder"):
            if self._command is not None:
                self._record(self._command)
                self._command = None  # said once
            return self._run(stop_after)

    def _run(self, stop_after: int | None) -> int:
        last = min(self.total_steps, stop_after or self.total_steps)
        batches = itertools.islice(TrainingBatches(self._plan, self.step), last - self.step)
        bar = Bar(self.folder.name, self.step, self.total_steps)
        log = JsonlLog(self.folder / "log.jsonl", resume_step=self.step)
        with Interruptions() as interrupted, log, bar:
            saved = sound = self.step
            try:
                mark, mark_time = self.step, time.monotonic()
                while self.step < last and not interrupted():
                    batch = next(batches)
                    sound = -1  # a step cut short may have changed some weights only
                    loss = self._step(batch)
                    self.step += 1
                    sound = self.step
                    bar.update()
                    if self.step % LOG_EVERY == 0 or self.step == last:
                        now = time.monotonic()
                        speed = (self.step - mark) * self._plan.batch_size / (now - mark_time)
                        self._log(log, bar, loss, speed)
                        mark, mark_time = self.step, now
                    if self.step % self._plan.steps_per_epoch == 0:
                        self._save()
                        saved = self.step
            finally:
                if sound > saved:
                    self._save()
        self.interrupted = interrupted()
        return self.step

    def _step(self, batch: dict[str, Any]) -> float:
        labels = batch["labels"]
        if "partners" in batch:
            labels = mixed_targets(labels, batch["partners"], batch["shares"], self._classes)
        rate = tf.constant(float(self._schedule(self.step)), tf.float32)
        loss = float(self._train(batch["images"], labels, rate))
        if not np.isfinite(loss):
            raise NonFiniteLossError("finetuned", loss, self.step)
        return loss

    def _log(self, log: JsonlLog, bar: Any, loss: float, speed: float) -> None:
        epoch = self.step / self._plan.steps_per_epoch
        rate = float(self._schedule(self.step - 1))
        values = {"loss": loss, "learning_rate": rate, "images_per_second": speed}
        log.write({"step": self.step, "epoch": epoch, **values})
        shown = {"epoch": f"{epoch:.2f}", "img/s": f"{speed:.0f}", "loss": f"{loss:.3f}"}
        bar.set_postfix(shown, refresh=False)


def _check_same(what: str, old: Any, new: Any, folder: Path) -> None:
    if old != new:
        raise CheckpointError(
            f"The finetuning in {folder} was started with another {what}; remove that folder or "
            f"use the same {what}. Received: {new!r}, was: {old!r}"
        )
