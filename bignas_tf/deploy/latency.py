"""How long TFLite files take on this machine."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from bignas_tf.files import check_output, staged
from bignas_tf.machine import cpu_model


@dataclasses.dataclass(frozen=True)
class Latency:
    """The times of one file, each invocation one image.

    Attributes:
        path: str, the `.tflite` file.
        median_ms: float, milliseconds.
        p95_ms: float, milliseconds.
        min_ms: float, milliseconds.
        mean_ms: float, milliseconds.
        runs: int, timed invocations, all rounds together.
        rounds: int.
        warmup: int, untimed invocations at the start of each round.
        threads: int.
        delegate: str, `"xnnpack"` or `"none"`: what ran, not what was asked for.
        delegate_parts: int, parts of the graph that the delegate took. Many mean
            that it keeps meeting an operation it does not know.
        peak_rss_mb: float, MB (1e6 bytes) of the whole process: the model, LiteRT,
            and about 40 for Python with NumPy.
        file_bytes: int.
        sha256: str, hexadecimal hash of the file.
    """

    path: str
    median_ms: float
    p95_ms: float
    min_ms: float
    mean_ms: float
    runs: int
    rounds: int
    warmup: int
    threads: int
    delegate: str
    delegate_parts: int
    peak_rss_mb: float
    file_bytes: int
    sha256: str = ""


class _Worker:
    """A process that holds one file, idle until asked for a round."""

    def __init__(self, path: str, process: subprocess.Popen[str], log: IO[bytes]) -> None:
        self.path = path
        self.process = process
        self.log = log
        self.parts: int = self.answer()["parts"]
        self.nanoseconds: list[int] = []
        self.peak_rss_mb = 0.0

    def answer(self) -> dict[str, Any]:
        """Reads the next line; without one, raises with the process's last words."""
        stdout = self.process.stdout
        line = stdout.readline() if stdout else ""
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.log.seek(0)
        words = self.log.read().decode("utf-8", "replace").strip().splitlines() or ["no output"]
        if status == 2:
            raise ValueError(words[-1].removeprefix("error: "))
        raise RuntimeError(f"timing {self.path} ended with status {status}: {words[-1]}")

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
def _started(path: str, threads: int, delegate: str) -> Iterator[_Worker]:
    arguments = [
        sys.executable,
        "-m",
        f"{__package__}.latency_worker",
        path,
        str(threads),
        delegate,
    ]
    with (
        tempfile.TemporaryFile() as log,  # a pipe could fill and block the worker
        subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=_environment(),
        ) as process,
    ):
        try:
            yield _Worker(path, process, log)
        finally:
            process.kill()


def _environment() -> dict[str, str]:
    """Lets the worker find this package, also from a checkout that is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def measure(
    paths: Sequence[str | os.PathLike[str]],
    *,
    threads: int = 1,
    warmup: int = 5,
    runs: int = 20,
    rounds: int = 5,
    delegate: str = "xnnpack",
    progress: bool = True,
) -> list[Latency]:
    """Times TFLite files on this machine, on random input.

    Each file lives in a process of its own. The processes take turns, a round
    each, so that a machine that slows down or is disturbed hits all files alike.

    Args:
        paths: `.tflite` files with one input and one output.
        threads: int, at least 1.
        warmup: int, untimed invocations at the start of each round: the caches
            hold another model then.
        runs: int, timed invocations per round, at least 1.
        rounds: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.
        progress: bool, shows a progress bar where stderr is a terminal.

    Returns:
        One `Latency` per file, in the order of `paths`.

    Raises:
        ValueError: if an argument is out of range or a file is not a TFLite model.
        RuntimeError: if a process dies.
    """
    for name, value, least in (("warmup", warmup, 0), ("runs", runs, 1), ("rounds", rounds, 1)):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {value}")
    if not paths:
        raise ValueError(f"`paths` must name at least one file. Received: {paths!r}")
    from tqdm import tqdm

    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_started(os.fspath(path), threads, delegate)) for path in paths
        ]
        bar = stack.enter_context(
            tqdm(
                total=rounds * len(workers),
                desc="timing",
                unit="round",
                disable=None if progress else True,
            )
        )
        for _ in range(rounds):
            for worker in workers:
                worker.round(warmup, runs)
                bar.update()
    return [_latency(worker, threads, warmup, rounds) for worker in workers]


def _latency(worker: _Worker, threads: int, warmup: int, rounds: int) -> Latency:
    milliseconds = np.asarray(worker.nanoseconds) / 1e6
    return Latency(
        path=worker.path,
        median_ms=float(np.median(milliseconds)),
        p95_ms=float(np.percentile(milliseconds, 95)),
        min_ms=float(milliseconds.min()),
        mean_ms=float(milliseconds.mean()),
        runs=len(milliseconds),
        rounds=rounds,
        warmup=warmup,
        threads=threads,
        delegate="xnnpack" if worker.parts else "none",
        delegate_parts=worker.parts,
        peak_rss_mb=worker.peak_rss_mb,
        file_bytes=Path(worker.path).stat().st_size,
        sha256=hashlib.sha256(Path(worker.path).read_bytes()).hexdigest(),
    )


def host_conditions() -> dict[str, str]:
    """What a latency on this machine depends on.

    Returns:
        The processor, its cores, the load average of the last minute, the system,
        the versions and the date (UTC).
    """
    return {
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "load_1min": f"{os.getloadavg()[0]:.2f}",
        "system": platform.platform(),
        "python": platform.python_version(),
        "ai_edge_litert": importlib.metadata.version("ai-edge-litert"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_csv(
    latencies: Sequence[Latency],
    path: str | os.PathLike[str],
    conditions: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes one row per file, the conditions repeated in each.

    Args:
        latencies: what `measure` returned.
        path: the CSV to write, in a folder that exists.
        conditions: further columns; those of `host_conditions` by default.
        overwrite: bool, whether an existing file may be replaced.

    Raises:
        OSError: if the file exists (FileExistsError) or cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite)
    conditions = host_conditions() if conditions is None else conditions
    columns = [field.name for field in dataclasses.fields(Latency)] + list(conditions)
    text = io.StringIO()
    rows = csv.DictWriter(text, columns, lineterminator="\n")
    rows.writeheader()
    for latency in latencies:
        figures = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(latency).items()
        }
        rows.writerow({**conditions, **figures})
    with staged(path) as (temporary,):
        temporary.write_text(text.getvalue(), encoding="utf-8")


def table(latencies: Sequence[Latency]) -> str:
    """The figures as aligned text, one line per file.

    Args:
        latencies: what `measure` returned.

    Returns:
        A header and one line per file.
    """
    head = ("file", "median ms", "p95 ms", "min ms", "peak RSS MB", "file MB", "delegate")
    lines = [head] + [
        (
            Path(latency.path).name,
            f"{latency.median_ms:.3f}",
            f"{latency.p95_ms:.3f}",
            f"{latency.min_ms:.3f}",
            f"{latency.peak_rss_mb:.0f}",
            f"{latency.file_bytes / 1e6:.2f}",
            f"{latency.delegate} ({latency.delegate_parts} parts)",
        )
        for latency in latencies
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(head) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
