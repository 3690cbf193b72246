"""Files that appear complete or not at all, and JSON in them."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

# What a file system says that has no locks, such as some of those over a network.
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


def check_output(path: Path, overwrite: bool) -> None:
    """Refuses, before the work is done, an output that could not be written after it.

    Args:
        path: the file to write.
        overwrite: bool, whether an existing one may be replaced.

    Raises:
        FileExistsError: if `path` exists and `overwrite` is false.
        OSError: if `path` is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        raise IsADirectoryError(f"the output must be a file, not a folder. Received: {path}")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"the output exists already; set `overwrite` to replace it. Received: {path}"
        )
    trial = _temporary(path)
    _create(trial)
    trial.unlink()


@contextlib.contextmanager
def staged(*outputs: Path) -> Iterator[tuple[Path, ...]]:
    """Gives temporary names beside `outputs`; leaving without an error renames them, in order.

    The temporary files are created on entry, so that a folder that cannot be
    written to is refused before any work is done, and are on the disk before they
    are renamed. After an error none is left, and the older outputs stay.

    Args:
        outputs: the files to write, in folders that exist.

    Yields:
        The temporary paths, one per output, in the same order.

    Raises:
        OSError: if an output's folder does not exist or cannot be written to.
    """
    temporary = tuple(_temporary(path) for path in outputs)
    try:
        for path in temporary:
            _create(path)
        yield temporary
        for path in temporary:
            sync(path)
        for source, target in zip(temporary, outputs, strict=True):
            os.replace(source, target)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Gives an empty folder beside `output`, gone on leaving, to write it under its own name.

    Args:
        output: the file or folder to write, in a folder that exists.

    Yields:
        The folder.

    Raises:
        OSError: if the folder of `output` cannot be written to.
    """
    folder = _temporary(output)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_remains(output: Path) -> None:
    """Removes what killed processes left of writing a file or folder, by `staged` or the like.

    Not for folders that processes of several machines write to: what runs elsewhere looks dead.

    Args:
        output: what they were writing.
    """
    _remove_dead(output.parent.glob(f".{glob.escape(output.name)}.*.tmp"))


def remove_all_remains(folder: Path) -> None:
    """`remove_remains` of everything that was written into a folder, if there is one."""
    _remove_dead(folder.glob(".*.tmp"))


def _remove_dead(remains: Iterable[Path]) -> None:
    for left in remains:
        number = left.name.removesuffix(".tmp").rpartition(".")[2]
        if not number.isdecimal() or _is_another(int(number)):
            continue
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _is_another(process: int) -> bool:
    """Whether another process of that number runs; where nobody can ask, it may."""
    if process == os.getpid():  # numbers come back, in a container soon
        return False
    if os.name != "posix":  # pragma: no cover - there, asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # of another user
    return True


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`staged` for one output."""
    with staged(Path(path)) as (temporary,):
        yield temporary
    # The rename itself survives a power loss only once the folder is on the disk.
    sync(Path(path).parent)


def replace_folder(new: Path, target: Path) -> None:
    """Moves a folder to a place where another may be.

    No system call that Python has does that in one step. An error or Ctrl-C on the way leaves
    the old folder in its place; a process that is killed leaves it as `.NAME.before`, from
    where `restore_folder` takes it back.

    Args:
        new: the folder, on the same file system.
        target: its place.

    Raises:
        OSError: if it cannot be moved.
    """
    restore_folder(target)
    before = _before(target)
    try:
        if target.exists():
            os.replace(target, before)
        os.replace(new, target)
    except BaseException:
        restore_folder(target)
        raise
    shutil.rmtree(before, ignore_errors=True)


def restore_folder(target: Path) -> None:
    """Ends what a killed `replace_folder` began: the old folder comes back, or its rest goes."""
    before = _before(target)
    if before.is_dir():
        if target.exists():
            shutil.rmtree(before)
        else:
            os.replace(before, target)


def _before(target: Path) -> Path:
    return target.with_name(f".{target.name}.before")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON, naming it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON. Received: {error}") from error


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes plain JSON, indented by two, to a file that is replaced whole.

    Raises:
        ValueError: for NaN or an infinity.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk; elsewhere than on POSIX that cannot be asked for."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderInUse(ValueError):
    """A folder that another process writes to."""


@contextlib.contextmanager
def only_writer(
    folder: Path,
    doing: str,
    lock: Path | None = None,
    argument: str = "workdir",
    patience: float = 0.0,
) -> Iterator[None]:
    """Refuses a second process that does the same in a folder, where the system has file locks.

    A file system without them gets a warning.

    Args:
        folder: that one process at a time writes to.
        doing: what it does, such as `trained into`.
        lock: file that is locked, in a folder that exists; `.lock` in `folder` by default.
        argument: that the folder was given as.
        patience: seconds to wait for the first process.

    Raises:
        FolderInUse: naming the first process.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not on Windows
        yield
        return
    with (lock or folder / ".lock").open("a+") as file:
        end = time.monotonic() + patience
        while not _locks(fcntl, file, folder):
            if time.monotonic() >= end:
                file.seek(0)
                raise FolderInUse(
                    f"`{argument}` must be {doing} by one process. Received: {folder}, which is "
                    f"being {doing} by {file.read().strip() or 'another'}"
                )
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _locks(fcntl: Any, file: IO[str], folder: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        warnings.warn(
            f"The file system of {folder} has no locks ({error.strerror}): nothing keeps a second "
            "process from it",
            RuntimeWarning,
            stacklevel=2,
        )
    return True


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _create(path: Path) -> None:
    """Creates an empty file (mkstemp would leave it unreadable for other users)."""
    try:
        path.write_bytes(b"")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the output's folder does not exist. Received: {path.parent}"
        ) from error
    except OSError as error:
        raise type(error)(
            f"the output's folder cannot be written to ({error.strerror}). Received: {path.parent}"
        ) from error
