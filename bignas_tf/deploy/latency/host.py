"""How long TFLite files take on this machine."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import hashlib
import importlib.metadata
import io
import math
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.deploy.latency.process import LIMIT, Worker, started
from bignas_tf.deploy.latency.spread import LEAST_ROUNDS, relative_spread
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
        spread: float, half the width of the 95 % interval of the rounds' median, relative
            to it (`relative_spread`), a little too small where the rounds went on until it
            was small; None for too few rounds to tell.
        steady: bool, whether `spread` got as small as was asked for; None if nothing was.
        round_medians_ms: tuple of float, milliseconds of each round. Rounds of files that
            were measured together are neighbours in time: ratios are steadier than times.
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
    spread: float | None = None
    steady: bool | None = None
    round_medians_ms: tuple[float, ...] = ()


class TimingError(RuntimeError):
    """Files that died or hung while they were timed.

    Args:
        message: what became of each.
        latencies: of the other files.

    Attributes:
        latencies: list of `Latency`, of the other files in their order.
    """

    def __init__(self, message: str, latencies: Sequence[Latency]) -> None:
        super().__init__(message)
        self.latencies = list(latencies)


def measure(
    paths: Sequence[str | os.PathLike[str]],
    *,
    threads: int = 1,
    warmup: int = 5,
    runs: int = 20,
    rounds: int = 5,
    spread: float | None = None,
    seconds: float = 60.0,
    limit: float = LIMIT,
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
        rounds: int, at least 1; the least with `spread`.
        spread: float, between 0 and 1: goes on until the `spread` of every file is
            as small. None takes `rounds` as they are.
        seconds: float, after which no further round begins for the sake of `spread`;
            files that did not get there are not `steady`.
        limit: float, seconds that a file's loading, or a round of it, may take.
        delegate: `"xnnpack"` or `"none"`.
        progress: bool, shows a progress bar where stderr is a terminal.

    Returns:
        One `Latency` per file, in the order of `paths`.

    Raises:
        ValueError: if an argument is out of range or a file is not a TFLite model.
        TimingError: if the process of a file dies or takes longer than `limit`; the others
            are timed all the same, and their figures are in it.
    """
    _check(paths, warmup, runs, rounds, spread, seconds)
    _check_limit(limit)
    from tqdm import tqdm

    failures: list[Exception] = []
    with contextlib.ExitStack() as stack:
        workers: list[Worker] = []
        for path in paths:
            with _noted(failures):
                one = started(os.fspath(path), threads, delegate, limit=limit)
                workers.append(stack.enter_context(one))
        total = rounds * len(workers) if spread is None else None
        quiet = None if progress else True
        bar = stack.enter_context(tqdm(total=total, desc="timing", unit="round", disable=quiet))
        start = time.monotonic()
        done = 0
        while done < rounds or (
            spread is not None
            and not all(_is_steady(worker, done, spread) for worker in workers)
            and (done < LEAST_ROUNDS or time.monotonic() - start < seconds)
        ):
            workers = [worker for worker in workers if _turn(worker, warmup, runs, failures, bar)]
            done += 1
    found = [_latency(worker, threads, warmup, done, spread) for worker in workers]
    if failures:
        raise TimingError("; ".join(map(str, failures)), found)
    return found


@contextlib.contextmanager
def _noted(failures: list[Exception]) -> Iterator[None]:
    """Notes that a process died or hung; a wrong file or argument still ends everything."""
    try:
        yield
    except RuntimeError as error:
        failures.append(error)


def _turn(worker: Worker, warmup: int, runs: int, failures: list[Exception], bar: Any) -> bool:
    """Whether a worker got through a round; if not, it is noted."""
    before = len(failures)
    with _noted(failures):
        worker.round(warmup, runs)
    bar.update()
    return len(failures) == before


def _check_limit(limit: float) -> None:
    longest = threading.TIMEOUT_MAX
    if not 0 < limit <= longest:
        raise ValueError(f"`limit` must be above 0, at most {longest:g} s. Received: {limit}")


def _check(
    paths: Sequence[object],
    warmup: int,
    runs: int,
    rounds: int,
    spread: float | None,
    seconds: float,
) -> None:
    for name, value, least in (("warmup", warmup, 0), ("runs", runs, 1), ("rounds", rounds, 1)):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {value}")
    if spread is not None and not 0 < spread < 1:
        raise ValueError(f"`spread` must be between 0 and 1. Received: {spread}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"`seconds` must be a number of at least 0. Received: {seconds}")
    if not paths:
        raise ValueError(f"`paths` must name at least one file. Received: {paths!r}")


def _round_medians(worker: Worker, rounds: int) -> list[float]:
    return (np.median(np.reshape(worker.nanoseconds, (rounds, -1)), axis=1) / 1e6).tolist()


def _spread(worker: Worker, rounds: int) -> float | None:
    return relative_spread(_round_medians(worker, rounds))


def _is_steady(worker: Worker, rounds: int, spread: float) -> bool:
    found = _spread(worker, rounds)
    return found is not None and found <= spread


def _latency(
    worker: Worker, threads: int, warmup: int, rounds: int, spread: float | None
) -> Latency:
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
        spread=_spread(worker, rounds),
        steady=None if spread is None else _is_steady(worker, rounds, spread),
        round_medians_ms=tuple(_round_medians(worker, rounds)),
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
    conditions: Mapping[str, str],
    *,
    overwrite: bool = False,
) -> None:
    """Writes one row per file, the conditions repeated in each.

    Args:
        latencies: what `measure` returned.
        path: the CSV to write, in a folder that exists.
        conditions: further columns, such as those of `host_conditions`.
        overwrite: bool, whether an existing file may be replaced.

    Raises:
        OSError: if the file exists (FileExistsError) or cannot be written.
    """
    path = Path(path)
    check_output(path, overwrite)
    figures_of = [field.name for field in dataclasses.fields(Latency)]
    figures_of.remove("round_medians_ms")  # not one value
    columns = figures_of + list(conditions)
    text = io.StringIO()
    rows = csv.DictWriter(text, columns, lineterminator="\n")
    rows.writeheader()
    for latency in latencies:
        figures = {name: getattr(latency, name) for name in figures_of}
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
        rows.writerow({**conditions, **rounded})
    with staged(path) as (temporary,):
        temporary.write_text(text.getvalue(), encoding="utf-8")


def table(latencies: Sequence[Latency]) -> str:
    """The figures as aligned text, one line per file.

    Args:
        latencies: what `measure` returned.

    Returns:
        A header, one line per file, and one that names the files that are not steady.
    """
    head = ("file", "median ms", "+-", "p95 ms", "min ms", "peak RSS MB", "file MB", "delegate")
    lines = [head] + [
        (
            Path(latency.path).name,
            f"{latency.median_ms:.3f}",
            "?" if latency.spread is None else f"{latency.spread:.1%}",
            f"{latency.p95_ms:.3f}",
            f"{latency.min_ms:.3f}",
            f"{latency.peak_rss_mb:.0f}",
            f"{latency.file_bytes / 1e6:.2f}",
            f"{latency.delegate} ({latency.delegate_parts} parts)",
        )
        for latency in latencies
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    unsteady = [Path(latency.path).name for latency in latencies if latency.steady is False]
    note = f"not steady: {', '.join(unsteady)}; repeat when nothing else runs"
    aligned = [
        "  ".join(
            cell.ljust(width) if column in (0, len(head) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(aligned + [note] * bool(unsteady))
