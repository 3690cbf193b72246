"""Reads what the native benchmark tool prints, in the forms of its versions."""

from __future__ import annotations

import dataclasses
import re
import signal
from typing import Literal, get_args

from bignas_tf.deploy.android.tool import Configuration

# `ok`; `unconfirmed`: figures, but the tool does not say that the delegate ran; `fell_back`: the
# CPU did the work of the delegate; `unsupported`: the delegate was refused; `failed`: another
# exit status than a signal's; `unreadable`: no figures.
Status = Literal[
    "ok", "unconfirmed", "fell_back", "unsupported", "wrong_abi", "no_space", "crashed",
    "failed", "timed_out", "unreadable",
]  # fmt: skip
STATUSES: tuple[Status, ...] = get_args(Status)
TIMED: tuple[Status, ...] = ("ok", "unconfirmed")  # those with figures

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
# "I tflite  : ", "INFO: ", "INFO: [benchmark_litert_model.h:62] " may stand before.
_COUNT = re.compile(r"^(?:\S+ *\S* *: *(?:\[\S+\] *)?)?count=(\d+) +(.*)$", re.MULTILINE)
_NEW = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_OLD = re.compile(  # the oldest call the average "no stats"
    rf"Average inference timings in us: Warmup: {_NUMBER}, Init: {_NUMBER}, "
    rf"(?:no stats|Inference): {_NUMBER}"
)
_LITERT = {
    "init_ms": rf"Model initialization: +{_NUMBER} ms",
    "first_ms": rf"Warmup \(first\): +{_NUMBER} ms",
    "warmup_ms": rf"Warmup \(avg\): +{_NUMBER} ms",
    "avg_ms": rf"Inference \(avg\): +{_NUMBER} ms",
    "min_ms": rf"Inference \(min\): +{_NUMBER} ms",
    "max_ms": rf"Inference \(max\): +{_NUMBER} ms",
    "std_ms": rf"Inference \(std\): +{_NUMBER}",
    "p5_ms": rf"Inference \(p5\): +{_NUMBER} ms",
    "median_ms": rf"Inference \((?:median|p50)\): +{_NUMBER} ms",
    "p95_ms": rf"Inference \(p95\): +{_NUMBER} ms",
}
_LITERT_RUNS = re.compile(rf"Inference \(avg\): +{_NUMBER} ms \((\d+) runs\)")
_PEAK = (
    rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}",
    rf"Peak memory: +{_NUMBER} MB",
    rf"Peak memory footprint \(MB\): init={_NUMBER} overall={_NUMBER}",
)
_REPLACED = re.compile(
    r"Replacing (\d+)(?: out of (\d+))? node\(s\) with delegate \((\S+?)\) node,"
    r" yielding (\d+) partitions"
)
_DELEGATES = {
    "cpu": r"(?!)",
    "xnnpack": r"xnnpack",
    "gpu": r"gpu|opencl|litert_cl|litert_gl|webgpu|litertcl",
    "nnapi": r"nnapi",
}
_WRONG_ABI = re.compile(
    r"not executable: \S+ ELF|Exec format error|CANNOT LINK EXECUTABLE|"
    r"cannot execute binary|wrong ELF class",
    re.IGNORECASE,
)
# What a shell adds after a program that a signal ended.
_SHELLS_WORDS = re.compile(
    r"(segmentation fault|aborted|killed|terminated|bus error|illegal instruction|"
    r"floating point exception|trace/bpt trap|trace/breakpoint trap)( \(core dumped\))?",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"Failed to apply \S+ delegate"
    r"|\S+ (?:acceleration|delegate) is (?:unsupported|not supported)"
    r"|Disallowed CPU fallback detected",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Figures:
    """Milliseconds, of the timed runs unless the name says otherwise; None if not told."""

    runs: int | None = None
    avg_ms: float | None = None
    std_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    p5_ms: float | None = None
    median_ms: float | None = None
    p95_ms: float | None = None
    init_ms: float | None = None
    first_ms: float | None = None
    warmup_ms: float | None = None
    peak_memory_mb: float | None = None


@dataclasses.dataclass(frozen=True)
class Delegation:
    """What of the graph the delegate took.

    Attributes:
        extent: str, `"all"`, `"part"`, `"none"`, or empty if the tool does not say.
        nodes: int, that it took; None if it is not told, like the others.
        of_nodes: int, of the graph.
        partitions: int, pieces that the graph falls into.
    """

    extent: str = ""
    nodes: int | None = None
    of_nodes: int | None = None
    partitions: int | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one run of the tool.

    Attributes:
        status: str, of `STATUSES`.
        message: str, one line on what went wrong.
        figures: only those of a status of `TIMED`.
        delegation: of the backend's delegate.
    """

    status: Status
    message: str = ""
    figures: Figures = Figures()
    delegation: Delegation = Delegation()


def outcome(status: int, text: str, configuration: Configuration) -> Outcome:
    """Judges one run of the tool.

    Args:
        status: its exit status.
        text: its output.
        configuration: what was asked for.
    """
    backend = configuration.backend
    delegation = read_delegation(text, backend)
    refused = _REFUSED.search(text)
    figures = read_figures(text)
    if status and _WRONG_ABI.search(text):
        return Outcome("wrong_abi", _line_of(_WRONG_ABI, text))
    if re.search(r"no space left on device", text, re.IGNORECASE):
        return Outcome("no_space", "no space left on the device")
    if status and refused:
        return Outcome("unsupported", _line_of(_REFUSED, text), delegation=delegation)
    if status > 128:
        words = f"{_signal(status - 128)}; last words: {last_words(text)}"
        return Outcome("crashed", words, delegation=delegation)
    if status:
        return Outcome("failed", f"exit status {status}: {last_words(text)}", delegation=delegation)
    if figures.avg_ms is None:
        return Outcome("unreadable", f"no figures; last words: {last_words(text)}")
    ignored = re.search(r"Unconsumed cmdline flags:.*(--use_(?:xnnpack|gpu|nnapi)\S*)", text)
    if ignored:
        return Outcome("unsupported", f"the tool does not know {ignored[1]}")
    if delegation.extent == "none" or (
        refused and re.search(_DELEGATES[backend], refused[0], re.IGNORECASE)
    ):
        words = f"the {backend} delegate took nothing; {figures.avg_ms:.3f} ms are not its own"
        return Outcome("fell_back", words, delegation=delegation)
    if backend in ("gpu", "nnapi") and not delegation.extent:
        words = f"the tool does not say that the {backend} delegate ran"
        return Outcome("unconfirmed", words, figures, delegation)
    return Outcome("ok", "", figures, delegation)


def read_figures(text: str) -> Figures:
    """Reads the figures in whatever form there is; microseconds before milliseconds.

    Args:
        text: the tool's output.

    Returns:
        The figures; `avg_ms` is None if there are none.
    """
    found: dict[str, float | None] = {}
    for name, pattern in _LITERT.items():
        if value := re.search(pattern, text):
            found[name] = float(value[1])
    runs = None
    if value := _LITERT_RUNS.search(text):
        runs = int(value[2])
    if value := _OLD.search(text):
        found |= _milliseconds(value, "warmup_ms", "init_ms", "avg_ms")
    if value := _NEW.search(text):
        found |= _milliseconds(value, "init_ms", "first_ms", "warmup_ms", "avg_ms")
    lines = _COUNT.findall(text)
    if len(lines) > 1 and found.get("avg_ms") is not None:  # the first is the warm-up
        runs = int(lines[1][0])
        found |= _statistics(lines[1][1])
    for pattern in _PEAK:
        if value := re.search(pattern, text):
            found["peak_memory_mb"] = float(value[value.re.groups])
            break
    return Figures(runs=runs, **found)


def _milliseconds(found: re.Match[str], *names: str) -> dict[str, float]:
    return {name: float(us) / 1e3 for name, us in zip(names, found.groups(), strict=True)}


def _statistics(line: str) -> dict[str, float]:
    """What follows `count=N`, in milliseconds; of one run only `curr` is told."""
    values = {name: float(us) / 1e3 for name, us in re.findall(rf"(\w+)={_NUMBER}", line)}
    if "curr" in values and "avg" not in values:
        same = values["curr"]
        return {"avg_ms": same, "min_ms": same, "max_ms": same}
    names = ("avg", "std", "min", "max", "p5", "median", "p95")
    return {f"{name}_ms": values[name] for name in names if name in values}


def read_delegation(text: str, backend: str) -> Delegation:
    """Reads what the tool says of the backend's delegate.

    Args:
        text: the tool's output.
        backend: of `tool.BACKENDS`.
    """
    name = _DELEGATES[backend]
    nodes = of_nodes = partitions = None
    extent = ""
    for replaced in _REPLACED.finditer(text):
        if re.search(name, replaced[3], re.IGNORECASE):
            nodes, partitions = int(replaced[1]), int(replaced[4])
            of_nodes = int(replaced[2]) if replaced[2] else None
            extent = "none" if not nodes else "all" if nodes == of_nodes else "part"
    for line in text.splitlines():
        if "delegate" not in line or not re.search(name, line, re.IGNORECASE):
            continue
        if "graph will be completely executed by the delegate" in line:
            extent = "all"
        elif "graph will be partially executed by the delegate" in line:
            extent = "part"
        elif "graph will not be executed by the delegate" in line:
            extent = "none"
    if backend == "gpu" and re.search(r"No operations will run on the GPU", text, re.IGNORECASE):
        extent = "none"
    return Delegation(extent, nodes, of_nodes, partitions)


def last_words(text: str) -> str:
    """The last line that says something; the shell's name of a signal does not."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not _SHELLS_WORDS.fullmatch(line)]
    return lines[-1] if lines else "none"


def _line_of(pattern: re.Pattern[str], text: str) -> str:
    return next((line.strip() for line in text.splitlines() if pattern.search(line)), "")


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
