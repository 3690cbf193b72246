"""Ctrl-C and SIGTERM, noticed between steps."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interruptions:
    """Turns Ctrl-C and SIGTERM into a question that the loop asks between steps."""

    def __enter__(self) -> Interruptions:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.signal is not None:  # asked twice: do not wait for the step
            raise KeyboardInterrupt
        self.signal = number

    def __call__(self) -> bool:
        return self.signal is not None

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
