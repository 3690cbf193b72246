"""The workers of one machine as processes: started, started again, ended."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bignas_tf.search.worker import LAUNCHER, ORACLE_IP, ORACLE_PORT, TUNER_ID

RESTARTS = 3
LAST_LINES = 20
END_SECONDS = 5.0


@dataclasses.dataclass
class _Worker:
    name: str
    log: Path
    process: subprocess.Popen | None = None
    deaths: int = 0  # in a row, without an evaluation in between
    evaluated: int = 0  # when it died last


class WorkerProcesses:
    """Workers that are started again under the same name when they die.

    Leaving the `with` block ends them all; they end themselves if this process is killed.

    Args:
        count: number of workers, 0 or more.
        command: of each, with its arguments.
        ip: of the chief.
        port: of the chief.

    Raises:
        OSError: if the command cannot be started.
    """

    def __init__(self, count: int, command: Sequence[str], ip: str, port: int) -> None:
        self._count = count
        self._command = list(command)
        self._environ = {ORACLE_IP: ip, ORACLE_PORT: str(port), LAUNCHER: str(os.getpid())}
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerProcesses:
        self._logs = tempfile.TemporaryDirectory(prefix="bignas_workers_")
        names = [f"worker{number}" for number in range(self._count)]
        self._workers = [_Worker(name, Path(self._logs.name) / f"{name}.log") for name in names]
        try:
            for worker in self._workers:
                self._start(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def check(self, evaluated: Mapping[str, int]) -> list[str]:
        """Starts dead workers again.

        Args:
            evaluated: number of results so far by name of the worker.

        Returns:
            Names of those that were.

        Raises:
            RuntimeError: with the end of its log, if one died once more after `RESTARTS`
                restarts without a result in between.
        """
        dead = [w for w in self._workers if w.process is None or w.process.poll() is not None]
        for worker in dead:
            done = evaluated.get(worker.name, 0)
            worker.deaths = 1 if done > worker.evaluated else worker.deaths + 1
            worker.evaluated = done
            if worker.deaths > RESTARTS:
                raise RuntimeError(self._obituary(worker))
            self._start(worker)
        return [worker.name for worker in dead]

    def _start(self, worker: _Worker) -> None:
        with worker.log.open("ab") as log:
            worker.process = subprocess.Popen(  # noqa: S603 - our own command
                self._command,
                env=os.environ | self._environ | {TUNER_ID: worker.name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which then ends them.
                start_new_session=True,
            )

    def _obituary(self, worker: _Worker) -> str:
        lines = worker.log.read_text(encoding="utf-8", errors="replace").splitlines()
        lines = [line for line in lines if line.strip()]
        if lines:
            print(f"the end of {worker.name}'s log:", *lines[-LAST_LINES:], sep="\n  ",
                  file=sys.stderr)  # fmt: skip
        status = worker.process.returncode if worker.process else None
        return (
            f"{worker.name} died {worker.deaths} times without a result in between, the last "
            f"time with status {status}: {lines[-1] if lines else 'its log is empty'}"
        )

    def __exit__(self, *_: object) -> None:
        running = [worker.process for worker in self._workers if worker.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + END_SECONDS
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._logs.cleanup()
