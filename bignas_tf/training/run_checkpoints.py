"""Checkpoints of a run: what they hold, and which of them it goes on from."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from bignas_tf.data.batches import BatchPlan
from bignas_tf.files import FolderInUse, only_writer
from bignas_tf.spaces import space_from_config
from bignas_tf.supernet import Supernet
from bignas_tf.training.checkpoints import CheckpointError, CheckpointManager
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.run_data import RunData
from bignas_tf.training.state import checksum, pack, require_run, unpack

# What may differ when a run is resumed: how long it runs and how often it looks.
RESUMABLE = (
    "epochs",
    "data",
    "on_bad_image",
    "evaluate_every",
    "checkpoint_every",
    "checkpoints_kept",
    "checkpoint_minutes",
    "calibration_images",
)


class RunCheckpoints:
    """The checkpoints of one run.

    Args:
        workdir: folder of the run.
        supernet: whose weights are saved.
        optimizer: built on them.
        recipe: of the run.
        data: of the run.
        plan: of its batches.
        teacher: which checkpoint it learns from, `Teacher.source`; None without a teacher.

    Attributes:
        recipe: of the run; `init_from` as it was when the run was started.
        saved: step of the checkpoint that was last restored or saved here; None for none.
    """

    def __init__(
        self,
        workdir: Path,
        supernet: Supernet,
        optimizer: keras.optimizers.Optimizer,
        recipe: Recipe,
        data: RunData,
        plan: BatchPlan,
        *,
        teacher: Mapping[str, str | int] | None = None,
    ):
        self.manager = CheckpointManager(workdir / "checkpoints", recipe.checkpoints_kept)
        self.saved: int | None = None
        self._seen: list[Path] = []
        self._workdir = workdir
        self._supernet = supernet
        self._optimizer = optimizer
        self.recipe = recipe
        self._data = data
        self._plan = plan
        self._teacher = None if teacher is None else dict(teacher)

    def newest(self) -> int | None:
        """The step of the newest sound checkpoint, whoever saved it; None if there is none."""
        restored = self.manager.restore_latest()
        return None if restored is None else restored.step

    def save(self, step: int) -> Path:
        """Writes the checkpoint of a step.

        Raises:
            OSError: if it cannot be written; older ones are intact.
            FloatingPointError: if a weight is not finite; nothing is written.
        """
        arrays = pack(self._supernet, self._optimizer)
        path = self.manager.save(step, arrays, self._metadata(step))
        self.saved, self._seen = step, self.manager.paths()
        return path

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Keeps others from the folder, in which nobody may have saved since `restore`.

        Raises:
            FolderInUse: if somebody has, or another process holds it.
        """
        return held_unchanged(self._workdir, self.manager, self._seen, "trained into", "workdir")

    def save_best(self, step: int, score: float) -> bool:
        """Writes the checkpoint of a step as the best one if its score is the highest so far."""
        if score <= self.manager.best_score():
            return False
        metadata = {**self._metadata(step), "score": score}
        return self.manager.save_best(pack(self._supernet, self._optimizer), metadata)

    def checksums(self) -> dict[str, int]:
        """Of weights and optimizer, recipe, data and teacher: numbers that workers can compare."""
        fields = {k: v for k, v in self.recipe.to_json().items() if k != "data"}
        return {
            "weights": checksum(pack(self._supernet, self._optimizer)),
            "recipe": zlib.crc32(json.dumps(fields, sort_keys=True).encode()),
            "data": zlib.crc32(self._data.source.fingerprint.encode()),
            "teacher": int(self._teacher["crc32"]) if self._teacher else 0,
        }

    def restore(self) -> int:
        """Puts the newest sound checkpoint back.

        Returns:
            Its step; 0 if there is none.

        Raises:
            CheckpointError: if it is of a run of another space, recipe or data.
        """
        self._seen = self.manager.paths()
        restored = self.manager.restore_latest()
        if restored is None:
            if self.manager.best.exists():
                raise CheckpointError(
                    f"`workdir` must be a new folder or hold a whole run. Received: "
                    f"{self._workdir}, which has {self.manager.best.name} only"
                )
            return 0
        metadata = restored.metadata
        require_run(restored.path, metadata)
        source, space = self._data.source, self._supernet.space
        self._check_same("space", metadata["space"]["name"], space.name)
        self._check_same("classes", metadata["classes"], list(source.classes))
        # A space may have been redefined under its name, with weights of the same shapes.
        was, now = space_from_config(metadata["space"]).config(), space.config()
        for field in now:
            self._check_same(f"`{field}` of space '{space.name}'", was[field], now[field])
        self._check_same("data fingerprint", metadata["fingerprint"], source.fingerprint)
        old, new = Recipe.from_json(metadata["recipe"]).to_json(), self.recipe.to_json()
        # Long past: it may be left out, and the checkpoint may be gone.
        if _is_same_path(old["init_from"], new["init_from"]) or new["init_from"] is None:
            self.recipe = self.recipe.replace(init_from=old["init_from"])
            new["init_from"] = old["init_from"]
        for field in old:
            if field not in RESUMABLE:
                self._check_same(field, old[field], new[field])
        if "teacher" in metadata:  # its folder may hold a newer checkpoint by now
            self._check_same("teacher's checkpoint", metadata["teacher"], self._teacher)
        unpack(self._supernet, self._optimizer, restored.arrays)
        self.saved = restored.step
        return restored.step

    def _check_same(self, what: str, old: Any, new: Any) -> None:
        if old != new:
            raise CheckpointError(
                f"The run in {self._workdir} was started with another {what}; use another "
                f"`workdir` or the same {what}. Received: {new!r}, was: {old!r}"
            )

    def _metadata(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "recipe": self.recipe.to_json(),
            "space": self._supernet.space.config(),
            "classes": list(self._data.source.classes),
            "data": self._data.source.name,
            "fingerprint": self._data.source.fingerprint,
            "steps_per_epoch": self._plan.steps_per_epoch,
            **({} if self._teacher is None else {"teacher": self._teacher}),
        }


@contextlib.contextmanager
def held_unchanged(
    folder: Path, manager: CheckpointManager, seen: Sequence[Path], doing: str, argument: str
) -> Iterator[None]:
    """Keeps others from a folder, as `only_writer`, if its checkpoints are those seen before.

    Args:
        folder: that one process at a time writes to.
        manager: of its checkpoints.
        seen: those there were when this process read or wrote the newest.
        doing: what is done in the folder, such as `trained into`.
        argument: that the folder was given as.

    Raises:
        FolderInUse: if another process holds the folder, or has saved in it.
    """
    with only_writer(folder, doing, argument=argument):
        if manager.paths() != list(seen):
            raise FolderInUse(
                f"`{argument}` must be {doing} by one process at a time: another one has saved "
                f"in {folder} since this one read it. The same command resumes from there"
            )
        yield


def writable_folder(workdir: str | Path) -> Path:
    """The folder of a run, made if there is none.

    Raises:
        OSError: if it cannot be.
    """
    folder = Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"`workdir` must be a folder that can be written to ({error.strerror}). "
            f"Received: {workdir}"
        ) from error
    return folder


def _is_same_path(one: str | None, other: str | None) -> bool:
    return bool(one and other) and Path(str(one)).resolve() == Path(str(other)).resolve()
