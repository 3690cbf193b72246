"""Checkpoints: one safetensors file of named arrays and JSON metadata.

Reading one never runs code, and a file under its final name is always whole: it is
written under another name in the same folder, flushed to the disk and renamed.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from bignas_tf.checks import require, require_int
from bignas_tf.files import replacing

FORMAT_VERSION = 1
_KEY = "bignas_tf"
_NAME = re.compile(r"step_\d{8,}\.safetensors")


class CheckpointError(ValueError):
    """A checkpoint that is damaged, of another program, or of another network."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint of which not everything can be read: an older one may stand in for it."""


def write_checkpoint(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: file to write; its folder is created.
        arrays: name -> bool, int, float (bfloat16 included) or complex64 array of any
            rank and memory layout.
        metadata: plain JSON.

    Raises:
        ValueError: if an array has no numeric type or `metadata` is not JSON (NaN and
            infinity are not).
    """
    dense = {name: _dense(name, array) for name, array in arrays.items()}
    try:
        plain = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`metadata` must be plain JSON. Received: {error}") from error
    envelope = {"format": FORMAT_VERSION, "crc32": _crc32(dense, plain), "metadata": plain}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `save_file`, which makes files that only their owner can read.
    content = safetensors.numpy.save(dense, metadata={_KEY: json.dumps(envelope)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a checkpoint and verifies its checksum.

    Args:
        path: file that `write_checkpoint` wrote.

    Returns:
        The arrays and the metadata, as they were given.

    Raises:
        DamagedCheckpointError: if the file is damaged, truncated or not a checkpoint of ours.
        CheckpointError: for another format, such as that of a newer version.
        FileNotFoundError: if there is none.
    """
    envelope = _envelope(path)
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise DamagedCheckpointError(f"Checkpoint {path} is damaged: {error}") from error
    if _crc32(arrays, envelope["metadata"]) != envelope["crc32"]:
        raise DamagedCheckpointError(f"Checkpoint {path} is damaged: its checksum does not match")
    return arrays, envelope["metadata"]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the metadata alone, with the arguments and errors of `read_checkpoint`.

    A checkpoint cut short is noticed, changed bytes may not be.
    """
    return _envelope(path)["metadata"]


class Restored(NamedTuple):
    """What `CheckpointManager.restore_latest` read, and the damaged files it passed over."""

    path: Path
    step: int
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    skipped: tuple[Path, ...]


class CheckpointManager:
    """The newest checkpoints of one run, `step_00001234.safetensors`, and `best.safetensors`.

    One process writes to a folder; any number may read.

    Args:
        folder: path, created by the first `save`.
        keep: int, 1 or more: checkpoints that remain after a `save`.

    Raises:
        ValueError: if `keep` is not a positive int.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3) -> None:
        require_int("keep", keep)
        self.folder = Path(folder)
        self.keep = keep

    def save(
        self, step: int, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
    ) -> Path:
        """Writes the checkpoint of `step` and removes the oldest beyond `keep`.

        Damaged checkpoints of later steps, which `restore_latest` passed over, are removed.

        Args:
            step: int, 0 or more: updates made so far. Replaces a checkpoint of that step.
            arrays: as in `write_checkpoint`.
            metadata: as in `write_checkpoint`; its 'step', if it has one, is `step`.

        Returns:
            The path of the new checkpoint.

        Raises:
            OSError: if it cannot be written; older ones are intact.
            FloatingPointError: if an array is not finite; nothing is written.
            ValueError: if the folder holds a sound checkpoint of a later step, which a
                resumed run would take instead of this one, or one of another format, or if
                `metadata` is that of another step.
        """
        require_int("step", step, low=0)
        named = metadata.get("step", step)
        require(named == step, "metadata['step']", f"{step}, as `step` is", named)
        for later in [path for path in self.paths() if _step(path) > step]:
            try:
                read_checkpoint(later)
            except DamagedCheckpointError:
                later.unlink()
            else:
                require(False, "step", f"at least {_step(later)}, that of {later}", step)
        # A process killed while it wrote left its temporary file behind.
        for stray in self.folder.glob(".*.safetensors.*.tmp"):
            stray.unlink(missing_ok=True)
        path = self.folder / f"step_{step:08d}.safetensors"
        self._write(path, arrays, metadata)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def save_best(self, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bool:
        """Writes `best.safetensors` if its `metadata["score"]` is higher than that of the old.

        Returns:
            Whether it was.

        Raises:
            OSError: if it cannot be written; all others are intact.
            FloatingPointError: if an array is not finite; nothing is written.
        """
        better = metadata["score"] > self.best_score()
        if better:
            self._write(self.best, arrays, metadata)
        return better

    def _write(
        self, path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
    ) -> None:
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise FloatingPointError(
                    f"{name} is not finite, {path} is not saved; older checkpoints are kept. "
                    "Start with a lower learning rate in another folder"
                )
        try:
            write_checkpoint(path, arrays, metadata)
        except OSError as error:
            last = next((p.name for p in reversed(self.paths()) if p != path), "none")
            raise OSError(
                f"The checkpoint {path} cannot be written: {error}; older ones are intact, the "
                f"newest of them is {last}"
            ) from error

    @property
    def best(self) -> Path:
        """Where the checkpoint of the highest score is, once there is one."""
        return self.folder / "best.safetensors"

    def best_score(self) -> float:
        """The highest score so far; minus infinity for none or a damaged file.

        Raises:
            CheckpointError: for a file of another format, which no other may replace.
        """
        try:
            return read_metadata(self.best)["score"]
        except (DamagedCheckpointError, FileNotFoundError):
            return -math.inf

    def paths(self) -> list[Path]:
        """Returns the checkpoints of the folder, oldest first, damaged ones included."""
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if _NAME.fullmatch(p.name)), key=_step)

    def latest(self) -> Path | None:
        """Returns the checkpoint of the highest step, or None. It is not read."""
        paths = self.paths()
        return paths[-1] if paths else None

    def restore_latest(self) -> Restored | None:
        """Reads the newest sound checkpoint, with a warning for each damaged one passed over.

        Returns:
            What was read, or None if the folder holds no checkpoint.

        Raises:
            CheckpointError: if the folder holds checkpoints and all are damaged, if one that would
                be read has another format or another step than its name says, or if the best has
                another format.
        """
        self.best_score()  # refused now, not by the first evaluation
        skipped: list[Path] = []
        for path in reversed(self.paths()):
            try:
                arrays, metadata = read_checkpoint(path)
            except DamagedCheckpointError as error:
                warnings.warn(f"{error}; trying the one before", RuntimeWarning, stacklevel=2)
                skipped.append(path)
                continue
            step = _step(path)
            if metadata.get("step", step) != step:
                raise CheckpointError(
                    f"Checkpoint {path} must be named after its step, {metadata['step']}. "
                    f"Received: {step}"
                )
            return Restored(path, step, arrays, metadata, tuple(skipped))
        if skipped:
            names = ", ".join(path.name for path in skipped)
            hint = f"; {self.best.name} may be sound" if self.best.exists() else ""
            raise CheckpointError(f"All checkpoints in {self.folder} are damaged: {names}{hint}")
        return None


def _envelope(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            text = (file.metadata() or {})[_KEY]
        envelope = json.loads(text)
        version, _, _ = envelope["format"], envelope["crc32"], envelope["metadata"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(
            f"Checkpoint {path} is damaged or no checkpoint of bignas_tf: {error}"
        ) from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"Checkpoint {path} must have format {FORMAT_VERSION}, the one that this version of "
            f"bignas_tf reads. Received: {version!r}"
        )
    return envelope


def _dense(name: str, array: np.ndarray) -> np.ndarray:
    # safetensors writes the memory as it lies: a transposed view would be saved wrong. Not
    # `np.ascontiguousarray`, which gives 0-d arrays an axis.
    array = np.asarray(array, order="C")
    known = array.dtype.kind in "biuf" or array.dtype.name in ("bfloat16", "complex64")
    require(known, f"arrays['{name}']", "bool, int, float or complex64", array.dtype.name)
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _crc32(arrays: Mapping[str, np.ndarray], metadata: Any) -> int:
    checksum = zlib.crc32(json.dumps(metadata).encode())
    for name, array in sorted(arrays.items()):
        head = f"{name} {array.dtype.name} {array.shape}".encode()
        content = array.reshape(-1).view(np.uint8).data
        checksum = zlib.crc32(content, zlib.crc32(head, checksum))
    return checksum


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step_"))
