"""Ctrl-C, SIGTERM and SIGHUP, noticed between steps."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interruptions:
    """Turns Ctrl-C, SIGTERM and SIGHUP into a question that the loop asks between steps.

    A second Ctrl-C raises KeyboardInterrupt, in a step too. Python notes signals between two calls
    into TensorFlow or JAX, so it ends none of those, and two within one of them count as one. The
    others may come twice, from a scheduler and from what it started, and always wait. What the
    process was started to ignore, as by nohup, stays ignored. Off the main thread, which gets no
    signals, nothing is noticed.

    Attributes:
        signal: number of the last one that came; None for none.
    """

    def __enter__(self) -> Interruptions:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last on POSIX only
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if number == self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __call__(self) -> bool:
        return self.signal is not None

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
