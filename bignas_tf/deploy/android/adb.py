"""Android's debug bridge: the `adb` program, and devices behind it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

_SECONDS = 60.0  # for commands that answer at once
_BYTES_PER_SECOND = 1e6  # slower than any cable, for the time limit of a push
_POLL = 0.1
_STATUS = "bignas_status="  # old devices do not hand a command's exit status on

_GONE = re.compile(
    "not found|not listed|no devices|closed|protocol fault|connection reset|broken pipe|EOF",
    re.IGNORECASE,
)


class AdbError(RuntimeError):
    """adb, or a device, does not do what it should."""


class DeviceLost(AdbError):
    """The device cannot be reached any more."""


class NoSpace(AdbError):
    """The device's storage is full."""


class TimedOut(AdbError):
    """A command took longer than it may."""


class Stopped(Exception):
    """The user wants to end."""


@dataclasses.dataclass(frozen=True)
class Listed:
    """A line of `adb devices`.

    Attributes:
        serial: str.
        state: str, `"device"` for one that can be used.
    """

    serial: str
    state: str

    @property
    def problem(self) -> str:
        """Why it cannot be used and what helps, or an empty text."""
        if self.state == "device":
            return ""
        if self.state in ("unauthorized", "authorizing"):
            return f"{self.state}: unlock it and accept its question about USB debugging"
        if self.state == "offline":
            return "offline: plug it in again, or `adb reconnect`"
        if self.state.startswith("no permissions"):
            return f"{self.state}: this user may not open the USB device (udev rules)"
        return self.state


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command on a device left.

    Attributes:
        status: int, its exit status; 128 + n if signal n ended it.
        output: str, its stdout and stderr.
    """

    status: int
    output: str


class Adb:
    """The `adb` program.

    Args:
        program: its name or path.

    Attributes:
        stop: threading.Event; once set, running commands end with `Stopped`.

    Raises:
        AdbError: if there is no such program.
    """

    def __init__(self, program: str = "adb") -> None:
        found = shutil.which(program)
        if not found:
            raise AdbError(
                f"there is no program {program!r}. adb comes with Android's platform tools "
                "(Debian: apt install adb); put it on the PATH or give its path"
            )
        self.program = found
        self.stop = threading.Event()

    def devices(self) -> list[Listed]:
        """Lists the devices, those that cannot be used among them.

        Raises:
            AdbError: if adb fails.
        """
        # The server that this starts must not hold a pipe of ours open.
        with tempfile.TemporaryFile() as log:
            self._run(["start-server"], _SECONDS, log=log)
        status, output, words = self._run(["devices"], _SECONDS)
        if status:
            raise AdbError(f"`adb devices` failed: {_last(words or output)}")
        lines = output.partition("List of devices attached")[2].splitlines()
        return [Listed(*line.split("\t", 1)) for line in map(str.strip, lines) if "\t" in line]

    def device(self, serial: str) -> Device:
        """The device of a serial number."""
        return Device(self, serial)

    def _run(
        self,
        arguments: Sequence[str],
        seconds: float,
        *,
        stoppable: bool = True,
        log: object = None,
    ) -> tuple[int, str, str]:
        """Runs adb: its exit status, stdout and stderr.

        In a session of its own: Ctrl-C at the terminal must not hit the commands that
        clean up.
        """
        end = time.monotonic() + seconds
        process = subprocess.Popen(  # noqa: S603 - the user's own adb, no shell
            [self.program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.PIPE,  # type: ignore[call-overload]
            stderr=log or subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            while True:
                try:
                    output, words = process.communicate(timeout=_POLL)
                    return process.returncode, output or "", words or ""
                except subprocess.TimeoutExpired:
                    if stoppable and self.stop.is_set():
                        raise Stopped from None
                    if time.monotonic() > end:
                        raise TimedOut(f"no answer after {seconds:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


class Device:
    """One device.

    Args:
        adb: the program.
        serial: str, which device.
    """

    def __init__(self, adb: Adb, serial: str) -> None:
        self.adb = adb
        self.serial = serial

    def shell(self, command: str, *, seconds: float = _SECONDS, stoppable: bool = True) -> Answer:
        """Runs a command of the device's shell.

        Args:
            command: str, for the device's `sh`.
            seconds: float, how long it may take.
            stoppable: bool, whether the user's wish to end ends it.

        Returns:
            Its exit status and output.

        Raises:
            TimedOut: if it takes longer; the command may still run on the device.
            AdbError: if the device cannot be reached (DeviceLost) or adb fails.
            Stopped: if the user wants to end.
        """
        line = f"( {command} ) 2>&1; s=$?; echo; echo {_STATUS}$s"
        status, output, words = self.adb._run(
            ["-s", self.serial, "shell", line], seconds, stoppable=stoppable
        )
        output = output.replace("\r\n", "\n")
        found = re.search(rf"\n{_STATUS}(\d+)\s*\Z", output)
        if not found:
            raise self._failure(status, words)
        return Answer(int(found[1]), output[: found.start()])

    def push(self, source: Path, target: str) -> None:
        """Copies a file to the device and checks that all of it arrived.

        Args:
            source: the file.
            target: its path on the device; no character that needs quotes.

        Raises:
            NoSpace: if the device is full.
            TimedOut: if it takes much longer than it should.
            AdbError: if the device cannot be reached (DeviceLost) or adb fails.
            Stopped: if the user wants to end.
        """
        size = source.stat().st_size
        seconds = _SECONDS + size / _BYTES_PER_SECOND
        status, output, words = self.adb._run(
            ["-s", self.serial, "push", str(source), target], seconds
        )
        if status:
            raise self._failure(status, f"{output}\n{words}")
        arrived = self.shell(f"wc -c < {target}")
        if arrived.output.strip() != str(size):
            raise self._failure(1, f"{source.name}: {arrived.output.strip()} of {size} bytes")

    def _failure(self, status: int, words: str) -> AdbError:
        """The error that adb's words mean."""
        name = self.serial
        if re.search(r"no space left", words, re.IGNORECASE):
            return NoSpace(f"no space left on device {name}")
        if "unauthorized" in words:
            return DeviceLost(f"device {name} is {Listed(name, 'unauthorized').problem}")
        if "offline" in words:
            return DeviceLost(f"device {name} is {Listed(name, 'offline').problem}")
        if not words.strip():
            words = self._state()
            if words in ("unauthorized", "offline"):
                return self._failure(status, words)
        if _GONE.search(words):
            return DeviceLost(f"device {name} is gone ({_last(words)})")
        return AdbError(f"device {name}: {_last(words)}")

    def _state(self) -> str:
        """Why the connection broke without a word: what adb lists now."""
        try:
            listed = {device.serial: device.state for device in self.adb.devices()}
        except (AdbError, Stopped) as error:
            return f"closed; {error}"
        state = listed.get(self.serial, "not listed any more")
        return "connection closed" if state == "device" else state


def _last(words: str) -> str:
    """The last line that is not empty."""
    return next((line.strip() for line in reversed(words.splitlines()) if line.strip()), "")


def usable(adb: Adb, serials: Sequence[str] = ()) -> tuple[list[Device], list[Listed]]:
    """The devices to measure on.

    Args:
        adb: the program.
        serials: which; all that can be used by default.

    Returns:
        `(devices, left_out)`: with `serials` none is left out.

    Raises:
        AdbError: if there is none, or one of `serials` cannot be used.
    """
    listed = {device.serial: device for device in adb.devices()}
    for serial in serials:
        if serial not in listed:
            known = ", ".join(listed) or "none"
            raise AdbError(f"`serials` must be connected ({known}). Received: {serial}")
        if listed[serial].problem:
            raise AdbError(f"device {serial} is {listed[serial].problem}")
    chosen = [listed[serial] for serial in dict.fromkeys(serials)] or list(listed.values())
    ready = [adb.device(device.serial) for device in chosen if not device.problem]
    left_out = [device for device in chosen if device.problem]
    if not ready:
        problems = "; ".join(f"{device.serial} is {device.problem}" for device in left_out)
        raise AdbError(
            problems or "no device: connect one, with USB debugging on, and see `adb devices`"
        )
    return ready, left_out
