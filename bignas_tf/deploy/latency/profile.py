"""Which operators of TFLite files take the time on this machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from bignas_tf.deploy.latency.operator_times import Operator, by_kind, write_profile
from bignas_tf.deploy.latency.process import answer_of

_SECONDS = 600.0  # a file whose profile takes longer hangs
_KINDS = 8  # lines of the printed summary


@dataclasses.dataclass(frozen=True)
class Profile:
    """The operators of one file.

    Attributes:
        path: str, the `.tflite` file.
        operators: in the order in which they ran; averages over the runs, of whole
            microseconds.
        total_ms: float, median time of an invocation without the profiler. The
            operators' sum differs: the profiler itself costs time, and what runs
            between operators belongs to none.
    """

    path: str
    operators: tuple[Operator, ...]
    total_ms: float


def profile(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    warmup: int = 10,
    runs: int = 50,
    delegate: str = "xnnpack",
) -> Profile:
    """Profiles one file with LiteRT's own profiler, in a process of its own.

    Args:
        path: a `.tflite` file with one input and one output.
        threads: int, at least 1.
        warmup: int, runs before it, at least 0.
        runs: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.

    Returns:
        The profile. With XNNPACK its operators are those that XNNPACK made of the
        graph, fused ones among them.

    Raises:
        ValueError: if the file or an argument is refused.
        RuntimeError: if the installed LiteRT cannot profile it.
    """
    for name, value, least in (("warmup", warmup, 0), ("runs", runs, 1)):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}. Received: {value}")
    path = os.fspath(path)
    arguments = (path, threads, delegate, warmup, runs)
    found = answer_of("latency.profiler", f"profiling {path}", *arguments, seconds=_SECONDS)
    operators = tuple(Operator(*fields) for fields in found["operators"])
    return Profile(path, operators, found["total_ms"])


def profile_outputs(paths: Sequence[str | os.PathLike[str]], folder: Path) -> list[Path]:
    """Where the profiles of files go: `folder/NAME.profile.csv` for `NAME.tflite`.

    Raises:
        ValueError: if two files have the same name, or `folder` is a file.
    """
    outputs = [folder / f"{Path(path).stem}.profile.csv" for path in paths]
    if len(set(outputs)) < len(outputs):
        raise ValueError(f"profiled files must differ in name. Received: {[*map(str, paths)]}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`profile` must be a folder. Received: {folder}")
    return outputs


def write_profiles(
    paths: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    threads: int = 1,
    delegate: str = "xnnpack",
) -> list[str]:
    """Profiles files and writes a CSV of each, replacing older ones.

    Args:
        paths: `.tflite` files that differ in name.
        folder: made if it does not exist.
        threads: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.

    Returns:
        For each file a few lines of text: the kinds of operators that take most.

    Raises:
        ValueError: if an argument is refused.
        RuntimeError: if the installed LiteRT cannot profile a file.
    """
    outputs = profile_outputs(paths, folder)
    folder.mkdir(parents=True, exist_ok=True)
    summaries = []
    for path, output in zip(paths, outputs, strict=True):
        found = profile(path, threads=threads, delegate=delegate)
        write_profile(found.operators, output)
        summaries.append(f"{summary(found)}\nwritten to {output}")
    return summaries


def summary(found: Profile) -> str:
    """The kinds of operators that take most of the time.

    Args:
        found: what `profile` returned.

    Returns:
        A headline and one line per kind.
    """
    kinds = by_kind(found.operators)
    total = sum(kinds.values())
    lines = [
        f"{Path(found.path).name}: {len(found.operators)} operators, {total:.3f} ms in all; "
        f"{found.total_ms:.3f} ms without the profiler"
    ]
    for kind, milliseconds in list(kinds.items())[:_KINDS]:
        share = milliseconds / total if total else 0.0
        lines.append(f"  {milliseconds:8.3f} ms  {share:6.1%}  {kind}")
    return "\n".join(lines)
