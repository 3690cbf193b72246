"""The native benchmark tool: which file it is, and its command line."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

BACKENDS = ("cpu", "xnnpack", "gpu", "nnapi")
# ELF's e_machine, and what Android calls it.
_ABIS = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a", 243: "riscv64"}
_SWITCHES = {
    "cpu": ("use_xnnpack", "false"),
    "xnnpack": ("use_xnnpack", "true"),
    "gpu": ("use_gpu", "true"),
    "nnapi": ("use_nnapi", "true"),
}
# TensorFlow Lite's tool profiles with the first, LiteRT's with the second.
_PROFILERS = ("enable_op_profiling", "use_profiler")
_HELP = re.compile(r"--(\w+)=")


@dataclasses.dataclass(frozen=True)
class Configuration:
    """How a file is run.

    Attributes:
        backend: str, one of `BACKENDS`: `cpu` is LiteRT's own kernels.
        threads: int, on the CPU.
        cores: str, hexadecimal mask for `taskset`; empty leaves it to the device.
    """

    backend: str
    threads: int
    cores: str = ""

    def __str__(self) -> str:
        pinned = f" cores {self.cores}" if self.cores else ""
        return f"{self.backend} {self.threads} thread{'s' * (self.threads > 1)}{pinned}"

    @property
    def slug(self) -> str:
        """For file names."""
        return "_".join(filter(None, (self.backend, f"t{self.threads}", self.cores)))


def configurations(
    backends: Sequence[str], threads: Sequence[int], cores: Sequence[str]
) -> list[Configuration]:
    """All combinations; of `threads` GPU and NNAPI take the first only.

    Args:
        backends: of `BACKENDS`.
        threads: ints, at least 1.
        cores: hexadecimal masks, or `"any"`.

    Raises:
        ValueError: if a value is not allowed, or there is none.
    """
    for backend in backends:
        if backend not in BACKENDS:
            raise ValueError(f"`backends` must be of {', '.join(BACKENDS)}. Received: {backend}")
    for count in threads:
        if count < 1:
            raise ValueError(f"`threads` must be at least 1. Received: {count}")
    for mask in cores:
        if mask != "any" and not (re.fullmatch(r"[0-9a-fA-F]+", mask) and int(mask, 16)):
            raise ValueError(f"`cores` must be hexadecimal masks or 'any'. Received: {mask}")
    if not (backends and threads and cores):
        raise ValueError("`backends`, `threads` and `cores` must have a value each")
    every = [
        Configuration(backend, count, "" if mask == "any" else mask.lower())
        for backend in backends
        for count in (threads if backend in ("cpu", "xnnpack") else threads[:1])
        for mask in cores
    ]
    return list(dict.fromkeys(every))


def tool_abi(path: Path) -> str:
    """The instruction set that the tool was built for.

    Args:
        path: the native `benchmark_model`.

    Raises:
        ValueError: if it is no native program.
    """
    if not path.is_file():
        raise ValueError(f"`benchmark_model` must be a file. Received: {path}")
    with path.open("rb") as file:
        head = file.read(20)
    if head[:2] == b"PK":
        raise ValueError(
            "`benchmark_model` must be the native program, not the Android app (.apk). "
            f"Received: {path}"
        )
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise ValueError(f"`benchmark_model` must be an Android program (ELF). Received: {path}")
    machine = struct.unpack_from("<H", head, 18)[0]
    if machine not in _ABIS:
        raise ValueError(
            f"`benchmark_model` must be for one of {', '.join(_ABIS.values())}. "
            f"Received: {path}, of ELF machine {machine}"
        )
    return _ABIS[machine]


def known_flags(usage: str) -> frozenset[str]:
    """The flags that the tool's `--help` lists; empty if it lists none."""
    return frozenset(_HELP.findall(usage))


def missing_switch(configuration: Configuration, known: frozenset[str]) -> str:
    """The flag that this tool lacks for a configuration, or an empty text.

    LiteRT's tool has no `use_xnnpack`: its CPU is always XNNPACK.
    """
    name, _ = _SWITCHES[configuration.backend]
    if not known or name in known or configuration.backend == "xnnpack":
        return ""
    return f"--{name}"


def command(
    tool: str,
    file: str,
    configuration: Configuration,
    *,
    warmup: int,
    runs: int,
    known: frozenset[str] = frozenset(),
    profile: bool = False,
) -> str:
    """The tool's command line.

    Args:
        tool: its path on the device.
        file: the `.tflite` file's path on the device.
        configuration: how to run.
        warmup: int, untimed runs.
        runs: int, timed runs.
        known: the flags that it has; empty for those of TensorFlow Lite.
        profile: bool, measures operators instead of memory.
    """
    flags = {
        "graph": file,
        "num_threads": configuration.threads,
        "warmup_runs": warmup,
        "num_runs": runs,
    }
    name, value = _SWITCHES[configuration.backend]
    if not known or name in known:
        flags[name] = value
    if profile:
        flags[_present(_PROFILERS, known)] = "true"
    else:
        flags["report_peak_memory_footprint"] = "true"
    words = [f"taskset {configuration.cores}"] if configuration.cores else []
    return " ".join([*words, tool, *(f"--{key}={value}" for key, value in flags.items())])


def _present(names: Iterable[str], known: frozenset[str]) -> str:
    names = list(names)
    return next((name for name in names if name in known), names[0])
