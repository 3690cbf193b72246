"""The processes that time TFLite files, one each."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

LIMIT = 300.0  # seconds, for an answer: beyond what any network for phones takes


class Worker:
    """A process that holds one file, or all of a folder, idle until asked for a round.

    Args:
        path: str, the `.tflite` file or the folder.
        process: `worker` or another that serves `orders`, its pipes open.
        log: what its stderr goes to.
        limit: float, seconds that loading the file, or a round, may take.
    """

    def __init__(
        self, path: str, process: subprocess.Popen[str], log: IO[bytes], limit: float = LIMIT
    ) -> None:
        self.path = path
        self.process = process
        self.log = log
        self.limit = limit
        self.parts: int = self.answer()["parts"]
        self.nanoseconds: list[int] = []
        self.peak_rss_mb = 0.0

    def answer(self) -> dict[str, Any]:
        """Reads the next line; without one, raises with the process's last words."""
        stdout = self.process.stdout
        hung = threading.Event()

        def end() -> None:
            hung.set()
            self.process.kill()  # the read below comes back

        timer = threading.Timer(self.limit, end)
        timer.start()
        try:
            line = stdout.readline() if stdout else ""
        finally:
            timer.cancel()
        if hung.is_set():
            raise RuntimeError(f"timing {self.path}: no answer within {self.limit:g} s")
        if line.endswith("\n"):  # else it died in the middle of one
            return json.loads(line)
        status = self.process.wait()
        self.log.seek(0)
        words = self.log.read().decode("utf-8", "replace")
        raise _failure(f"timing {self.path}", status, words)

    def round(self, warmup: int, runs: int) -> None:
        """Runs one round and keeps its times."""
        order = self.process.stdin
        if order is None:
            raise RuntimeError("the worker has no stdin")
        with contextlib.suppress(BrokenPipeError):  # answer() says why it died
            order.write(json.dumps({"warmup": warmup, "runs": runs}) + "\n")
            order.flush()
        answer = self.answer()
        self.nanoseconds += answer["nanoseconds"]
        self.peak_rss_mb = answer["peak_rss_mb"]


@contextlib.contextmanager
def started(
    path: str,
    threads: int,
    delegate: str,
    module: str = "latency.worker",
    limit: float = LIMIT,
) -> Iterator[Worker]:
    """A `Worker` that is stopped on leaving.

    Args:
        path: str, the `.tflite` file, or the folder of `block_latency.worker`.
        threads: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.
        module: `"latency.worker"` or `"block_latency.worker"`.
        limit: float, seconds that loading the file, or a round, may take.

    Yields:
        The worker, its file loaded.

    Raises:
        ValueError: if the file or an argument is refused.
        RuntimeError: if the process dies or takes longer.
    """
    with (
        tempfile.TemporaryFile() as log,  # a pipe could fill and block the worker
        subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            _command(module, path, threads, delegate),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=_environment(),
        ) as process,
    ):
        try:
            yield Worker(path, process, log, limit)
        finally:
            process.kill()
            if process.stdin:
                with contextlib.suppress(BrokenPipeError):  # an order that it died before reading
                    process.stdin.close()


def answer_of(module: str, subject: str, *arguments: object, seconds: float) -> Any:
    """What one of our modules prints as JSON when run to its end in a process of its own.

    Args:
        module: its name in `bignas_tf.deploy`.
        subject: what it does, for errors.
        arguments: of its command line.
        seconds: float, how long it may take.

    Raises:
        ValueError: if it ends with status 2, which means a wrong argument or file.
        RuntimeError: if it dies or takes longer.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module, no shell
            _command(module, *arguments),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=_environment(),
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{subject} took longer than {seconds:.0f} s") from None
    if done.returncode:
        raise _failure(subject, done.returncode, done.stderr)
    return json.loads(done.stdout)


def _failure(subject: str, status: int, words: str) -> Exception:
    last = (words.strip().splitlines() or ["no output"])[-1]
    if status == 2:
        return ValueError(last.removeprefix("error: "))
    return RuntimeError(f"{subject} ended with status {status}: {last}")


def _command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"bignas_tf.deploy.{module}", *map(str, arguments)]


def _environment() -> dict[str, str]:
    """Lets the process find this package, also from a checkout that is not installed."""
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
