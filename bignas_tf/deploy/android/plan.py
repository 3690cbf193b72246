"""What a sweep measures."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from bignas_tf.deploy.android.cooling import Cooling
from bignas_tf.deploy.android.tool import Configuration, tool_abi


@dataclasses.dataclass(frozen=True)
class Pushed:
    """A file that goes to the devices.

    Attributes:
        path: where it is here.
        sha256: str, hexadecimal hash.
        bytes: int.
    """

    path: Path
    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        tool: the native benchmark program.
        abi: str, what `tool` was built for.
        files: the `.tflite` files.
        configurations: each is run with each file.
        warmup: int, untimed runs.
        runs: int, timed runs.
        seconds: float, limit of one run of the tool.
        cooling: between runs.
        profiles: folder for the operators' times; None runs no profiler.
        hash_serial: bool, keeps serial numbers out of the CSV.
    """

    tool: Pushed
    abi: str
    files: tuple[Pushed, ...]
    configurations: tuple[Configuration, ...]
    warmup: int = 10
    runs: int = 50
    seconds: float = 300.0
    cooling: Cooling = Cooling()
    profiles: Path | None = None
    hash_serial: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("warmup", self.warmup, 0), ("runs", self.runs, 1)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {value}")
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"`seconds` must be a number above 0. Received: {self.seconds}")

    @property
    def measurements(self) -> list[tuple[Pushed, Configuration]]:
        """Of a device: the files in turn for each configuration, so that drift hits all alike."""
        return [(file, each) for each in self.configurations for file in self.files]

    def text(self) -> str:
        """What will be done, for people."""
        count = len(self.measurements)
        lines = [
            f"tool {self.tool.path} ({self.abi}, sha256 {self.tool.sha256[:12]})",
            *(f"file {file.path} ({file.bytes / 1e6:.2f} MB)" for file in self.files),
            *(f"configuration {each}" for each in self.configurations),
            f"{count} measurements a device, each of {self.warmup} untimed and at least "
            f"{self.runs} timed runs" + (" and once more with the profiler" * bool(self.profiles)),
            f"between them {self.cooling.pause:g} s, and up to {self.cooling.limit:g} s until it "
            f"is at most {self.cooling.margin:g} degrees warmer than before the first one in the "
            "CSV and throttled no more",
        ]
        return "\n".join(lines)


def pushed(path: str | os.PathLike[str]) -> Pushed:
    """Describes a file.

    Raises:
        OSError: if it cannot be read.
    """
    content = Path(path).read_bytes()
    return Pushed(Path(path), hashlib.sha256(content).hexdigest(), len(content))


def tool_file(path: str | os.PathLike[str]) -> tuple[Pushed, str]:
    """Describes the native benchmark program.

    Returns:
        The file, and what it was built for.

    Raises:
        ValueError: if it is no native program.
    """
    abi = tool_abi(Path(path))
    return pushed(path), abi


def model_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[Pushed, ...]:
    """Describes `.tflite` files.

    Raises:
        ValueError: if there is none, two are equal, or one is not a TFLite file.
    """
    if not paths:
        raise ValueError(f"`model` must name at least one file. Received: {paths!r}")
    files: list[Pushed] = []
    for path in map(Path, paths):
        if not path.is_file():
            raise ValueError(f"`model` must be TFLite files. Received: {path}, which is none")
        file = pushed(path)
        with path.open("rb") as opened:
            if opened.read(8)[4:] != b"TFL3":
                raise ValueError(f"`model` must be TFLite files. Received: {path}")
        for other in files:
            if other.sha256 == file.sha256:
                raise ValueError(
                    f"`model` must be different files. Received: {other.path} and {path}, "
                    "equal in content"
                )
        files.append(file)
    return tuple(files)
