"""Images that stay encoded until they are read, and those of them that cannot be decoded."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

from bignas_tf.data.errors import BrokenImageError

ON_BAD_IMAGE = ("stop", "skip")


class Records(Protocol):
    """Encoded images that are no files of their own; read by several threads."""

    def __len__(self) -> int:
        """Returns the number of images."""

    def name(self, position: int) -> str:
        """Returns what errors call an image."""

    def read(self, position: int) -> bytes:
        """Returns an image as it is stored."""

    def take(self, positions: np.ndarray) -> Records:
        """Returns the images at `positions`, int64 `(k,)`, in that order."""


class BadImages:
    """Counts and lists the images that could not be decoded; safe to use from several threads."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, error: BrokenImageError) -> None:
        """Notes an image; one that was noted before counts once."""
        with self._lock:
            self._reasons[error.path] = error.reason

    def __len__(self) -> int:
        return len(self._reasons)

    def reasons(self) -> dict[str, str]:
        """Returns why each could not be decoded, by its name, sorted."""
        with self._lock:
            return dict(sorted(self._reasons.items()))
