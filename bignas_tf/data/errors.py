"""Errors about data, each one line that says what to change."""

from __future__ import annotations

import os


class DataError(ValueError):
    """A data argument, folder or data set that cannot be used as it is."""


class _ImageError(DataError):
    def __init__(self, path: str | os.PathLike[str], reason: str):
        super().__init__(os.fspath(path), reason)
        self.path = os.fspath(path)
        self.reason = reason


class BrokenImageError(_ImageError):
    """An image that cannot be decoded.

    Args:
        path: the file, or what a source without files calls the image.
        reason: what the decoder said.
    """

    def __str__(self) -> str:
        return f"Cannot decode image '{self.path}': {self.reason}"


class UnreadableImageError(_ImageError):
    """An image that the disk or the network does not give: it may be a sound one.

    Args:
        path: as of `BrokenImageError`.
        reason: what the system said.
    """

    def __str__(self) -> str:
        return (
            f"Cannot read image '{self.path}': {self.reason}. See to "
            "the disk or the network; what can be read but not decoded may be skipped"
        )
