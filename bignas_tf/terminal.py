"""Words for a terminal, or what a pipe leads to, that may be gone before the work ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def perhaps_unread() -> Iterator[None]:
    """For a block that only shows something: where it cannot be shown, work goes on without."""
    try:
        yield
    except OSError:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as under pythonw
                _silence_if_broken(stream)


def say(text: str, *, error: bool = False) -> None:
    """Prints to stdout, or to stderr, if anyone reads it."""
    with perhaps_unread():
        print(text, file=sys.stderr if error else sys.stdout, flush=True)


def _silence_if_broken(stream: TextIO) -> None:
    """Takes what is left in a stream: Python would try again when it ends, and exit with 120."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError):  # of a stream that is no file
            number = stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
            stream.flush()
