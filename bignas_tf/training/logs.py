"""What a run leaves behind besides weights: metrics by step and how it was started."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tqdm

from bignas_tf import __version__, files
from bignas_tf.checks import is_int, require_int
from bignas_tf.json_lines import mend, read_lines, write_lines
from bignas_tf.machine import cpu_model, device
from bignas_tf.optional import installing
from bignas_tf.terminal import perhaps_unread

LOG_EVERY = 10  # steps between two lines of a log


class JsonlLog:
    """Metrics as one JSON object per line, each with its `step`.

    A run resumed from a checkpoint repeats the steps after it. With `resume_step` their
    lines are dropped first, so the log ends up like that of a run that never stopped. A
    last line that a killed process left half-written is dropped in any case.

    Args:
        path: file to append to; its folder is created.
        resume_step: int or None: the last step whose lines stay; None keeps all.

    Attributes:
        logged: names that the lines of `resume_step` have.

    Raises:
        ValueError: if any but a half-written last line is no object with an int `step`.
    """

    def __init__(self, path: str | os.PathLike[str], resume_step: int | None = None) -> None:
        self.path = Path(path)
        self.logged: set[str] = set()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._keep(math.inf if resume_step is None else resume_step)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one line and hands it to the operating system.

        Args:
            record: `step` (int, 0 or more) and anything that `write_record` takes.

        Raises:
            OSError: if it cannot be written.
            ValueError: if `step` is missing or no int.
        """
        plain = _plain(record)
        require_int("step", plain.get("step"), low=0)
        line = json.dumps(plain, allow_nan=False) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # what is left of the line, once more
                self._file.close()
            raise OSError(
                f"The log {self.path} cannot be written: {error}; the checkpoints are intact"
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> JsonlLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep(self, last_step: float) -> None:
        mend(self.path)
        records = read_lines(self.path)
        for number, record in enumerate(records, start=1):
            if not is_int(record.get("step"), low=0):
                raise ValueError(
                    f"Line {number} of {self.path} must be a JSON object with an int `step`. "
                    f"Received: {json.dumps(record)[:80]}"
                )
            if record["step"] == last_step:
                self.logged |= record.keys()
        kept = [record for record in records if record["step"] <= last_step]
        if len(kept) < len(records):
            write_lines(self.path, kept)


class ScalarLog:
    """Scalars for TensorBoard, where the backend is TensorFlow and `tensorboard` is installed.

    Elsewhere it says once per process what is missing, and writes nothing.

    Args:
        folder: path, created by the first write.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = str(folder)
        self._writer: Any = None
        self._missing = _missing_for_scalars()
        if self._missing:
            _say_once(self._missing)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of one step.

        Args:
            step: int, 0 or more.
            scalars: tag (`train/loss`) -> number.
        """
        if self._missing:
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder)
        with self._writer.as_default(step):
            for tag, value in scalars.items():
                tf.summary.scalar(tag, float(value))

    def close(self) -> None:
        """Writes out what is buffered and closes the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Bar(tqdm.tqdm):
    """A progress bar that goes on in silence when its terminal is gone: steps are not lost to it.

    Args:
        name: of the run.
        step: int, steps made before.
        total: int, steps of the whole run.
        silent: whether to show nothing at all.
    """

    def __init__(self, name: str, step: int, total: int, silent: bool = False) -> None:
        super().__init__(total=total, initial=step, unit="step", desc=name, disable=silent)

    def display(self, *args: Any, **kwargs: Any) -> Any:
        """Draws the bar."""
        # Here, within what tqdm does: it would not give its lock back after an error.
        with perhaps_unread():
            return super().display(*args, **kwargs)

    def close(self) -> None:
        """Ends the line."""
        with perhaps_unread():
            super().close()


class RunLogs:
    """What a run says while it trains: log.jsonl, TensorBoard scalars and a progress bar.

    Args:
        workdir: folder of the run.
        name: of the run, for the bar.
        step: int, steps made before.
        total: int, steps of the whole run.
        silent: whether to write and show nothing, as the workers that another speaks for.

    Attributes:
        logged: names that were logged of `step` before; none where silent.
    """

    def __init__(
        self, workdir: Path, name: str, step: int, total: int, silent: bool = False
    ) -> None:
        self._log = None if silent else JsonlLog(workdir / "log.jsonl", resume_step=step)
        self.logged = self._log.logged if self._log else set()
        self._scalars = None if silent else ScalarLog(workdir / "tensorboard")
        self.bar = Bar(name, step, total, silent)

    def write(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        """Writes metrics of a step."""
        if self._log and self._scalars:
            self._log.write({"step": step, "epoch": epoch, **values})
            self._scalars.write(step, values)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if not self.bar.disable:
            with perhaps_unread():
                self.bar.write(text)
                sys.stdout.flush()

    def __enter__(self) -> RunLogs:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self._log and self._scalars:
            self._log.close()
            self._scalars.close()


def run_record(
    command: Sequence[str], seeds: Mapping[str, int], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes how and where a run was started, for its run.json.

    Args:
        command: the program and its arguments (`sys.argv`).
        seeds: what each seed is for -> seed.
        recipe: the recipe with all overrides applied.

    Returns:
        Plain JSON: `started` (UTC), `command`, `seeds`, `recipe`, `versions`, `threads`,
        `machine`.
    """
    backend = keras.backend.backend()
    threads: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }
    # Importing TensorFlow here would start it in a JAX run.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        # 0 leaves the choice to TensorFlow.
        threads["intra_op"] = tensorflow.config.threading.get_intra_op_parallelism_threads()
        threads["inter_op"] = tensorflow.config.threading.get_inter_op_parallelism_threads()
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "seeds": _plain(seeds),
        "recipe": _plain(recipe),
        "versions": {
            "bignas_tf": __version__,
            "python": platform.python_version(),
            "keras": keras.version(),
            "backend": backend,
            backend: _version(backend),
            "numpy": np.__version__,
        },
        "threads": threads,
        "machine": {"platform": platform.platform(), "cpu": cpu_model(), "device": device()},
    }


def resumed_record(first: Mapping[str, Any], now: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The record of a run that goes on: how it was started, and how each time after that.

    Args:
        first: the run's record so far.
        now: its record were it started now.
        step: int, from which it goes on.
    """
    kept = ("started", "command", "versions", "threads", "machine", "loop")
    again = {"step": step, **{key: now[key] for key in kept if key in now}}
    return {**first, "resumed": [*first.get("resumed", []), again]}


def write_record(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a JSON file atomically, indented by two.

    Args:
        path: file to write; its folder is created.
        value: JSON, NumPy arrays and scalars, paths. NaN and the infinities, for which
            JSON has no numbers, become the strings `nan`, `inf` and `-inf`, which
            `float` reads.

    Raises:
        TypeError: if `value` holds anything else.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, _plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _missing_for_scalars() -> str | None:
    if keras.backend.backend() != "tensorflow":
        return "TensorBoard scalars need the TensorFlow backend of Keras; none are written"
    if importlib.util.find_spec("tensorboard") is None:
        return f"No TensorBoard scalars are written; to have them, {installing('tensorboard')}"
    return None


@functools.cache
def _say_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        # A source tree that was not installed, or a build under another name (tensorflow-cpu).
        module = sys.modules.get(distribution)
        return getattr(module, "__version__", "unknown")
