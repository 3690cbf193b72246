"""Lines that say how far a sweep over several devices is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Progress:
    """Counts measurements and estimates the time left.

    Args:
        say: prints a line.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._start: dict[str, float] = {}

    def begin(self, device: str, measurements: int) -> None:
        """A device starts, with so many measurements ahead."""
        with self._lock:
            self._left[device], self._done[device] = measurements, 0
            self._start[device] = self._clock()

    def done(self, device: str, what: str) -> None:
        """A device finished one; `what` came of it."""
        with self._lock:
            self._done[device] += 1
            self._left[device] -= 1
            done, every = sum(self._done.values()), sum(self._done.values()) + self._ahead()
            line = f"[{done}/{every}] {device}: {what}"
            if self._ahead():
                line += f"; about {_duration(self.seconds_left())} left"
            self._say(line)

    def end(self, device: str) -> None:
        """A device is through, or lost."""
        with self._lock:
            self._left[device] = 0

    def say(self, line: str) -> None:
        """Prints a line of another kind."""
        with self._lock:
            self._say(line)

    def seconds_left(self) -> float:
        """Of the device that takes longest, going on as it did."""
        now = self._clock()
        return max(
            (
                (now - self._start[device]) / self._done[device] * left
                for device, left in self._left.items()
                if self._done.get(device)  # one may be lost before it begins
            ),
            default=0.0,
        )

    def _ahead(self) -> int:
        return sum(self._left.values())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
