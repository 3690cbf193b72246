"""Keeps the chatter of native libraries off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Holds back what the process writes to stderr; an exception lets it through.

    The converter logs from C++, past `sys.stderr`, so the file descriptor itself
    is redirected. That holds for every thread of the process.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            _restore(saved)
            log.seek(0)
            os.write(2, log.read())
            raise
        else:
            _restore(saved)
        finally:
            os.close(saved)


def _restore(saved: int) -> None:
    sys.stderr.flush()
    os.dup2(saved, 2)
