"""SIGTERM taken for Ctrl-C, where work is cleaned up behind an exception."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Raises KeyboardInterrupt on SIGTERM too; off the main thread, which gets no signals, nothing.

    `bignas_tf.training.interruptions` is for loops that end a step before they stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)
