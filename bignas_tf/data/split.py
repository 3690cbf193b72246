"""Examples in memory or on disk, and stratified parts of them."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import numpy as np

from bignas_tf.data.errors import DataError
from bignas_tf.data.images import decode_images
from bignas_tf.data.streams import Stream, raw


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labels with images, which are either in memory or files decoded when they are read.

    Args:
        labels: int32 `(n,)`.
        images: uint8 `(n, height, width, channels)`, or None.
        paths: `n` file names, or None.
        image_size: int, the side that files are decoded to; with `paths` only.
        channels: 1 or 3, what files are decoded to; with `paths` only.

    Raises:
        DataError: if not exactly one of `images` and `paths` is given, or their length or type
            does not fit.
    """

    labels: np.ndarray
    images: np.ndarray | None = None
    paths: tuple[str, ...] | None = None
    image_size: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != np.int32 or self.labels.ndim != 1:
            raise DataError(
                f"`labels` must be int32 with one dimension. "
                f"Received: {self.labels.dtype} {self.labels.shape}"
            )
        content: Any = self.images if self.paths is None else self.paths
        if content is None or (self.images is not None and self.paths is not None):
            raise DataError("Exactly one of `images` and `paths` must be given.")
        if len(content) != len(self.labels):
            raise DataError(
                f"`labels` must be as many as there are images, {len(content)}. "
                f"Received: {len(self.labels)}"
            )
        if self.images is not None and (self.images.dtype != np.uint8 or self.images.ndim != 4):
            raise DataError(
                f"`images` must be uint8 (n, height, width, channels). "
                f"Received: {self.images.dtype} {self.images.shape}"
            )
        if self.paths is not None and (self.image_size is None or self.channels not in (1, 3)):
            raise DataError(
                "`paths` need an `image_size` and 1 or 3 `channels`. "
                f"Received: {self.image_size}, {self.channels}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        if self.images is not None:
            height, width, channels = self.images.shape[1:]
            return height, width, channels
        if self.image_size is None or self.channels is None:
            raise AssertionError("a split of files is checked when it is made")
        return self.image_size, self.image_size, self.channels

    def take(self, indices: np.ndarray) -> Split:
        """Returns the examples `indices`, int `(k,)`, in that order."""
        indices = np.asarray(indices, np.int64)
        return dataclasses.replace(
            self,
            labels=self.labels[indices],
            images=None if self.images is None else self.images[indices],
            paths=None if self.paths is None else tuple(self.paths[i] for i in indices),
        )

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Returns the images `indices`, int `(k,)`, decoding in parallel what is on disk.

        Returns:
            uint8 `(k, height, width, channels)`.

        Raises:
            BrokenImageError: if a file cannot be decoded.
        """
        if self.paths is None:
            if self.images is None:
                raise AssertionError("a split is checked when it is made")
            return self.images[indices]
        size, _, channels = self.image_shape
        return decode_images([self.paths[i] for i in indices], size, channels)


def hold_out(split: Split, count: int, seed: int) -> tuple[Split, Split]:
    """Splits off a stratified part, for choosing between children or as a search's validation.

    Args:
        split: the examples.
        count: int, size of the part. Each class gives its share, at least one example if `count`
            allows, and keeps at least one.
        seed: int in [0, 2**64).

    Returns:
        (rest, held out), each in the order of `split`.

    Raises:
        DataError: if `count` is not in 1..len(split) - classes.
    """
    rest, held_out = stratify(split.labels, count, seed, Stream.HOLD_OUT)
    return split.take(rest), split.take(held_out)


def stratify(
    labels: np.ndarray, count: int, seed: int, stream: Stream
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ascending indices, int64, of (rest, `count` chosen examples).

    Raises:
        DataError: if `count` is not in 1..n - classes.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    most = len(labels) - len(classes)
    if not 1 <= operator.index(count) <= most:
        raise DataError(
            f"`count` of examples to split off must be in 1..{most}: of {len(labels)} examples, "
            f"one of each of {len(classes)} classes stays. Received: {count}"
        )
    order = np.argsort(raw(stream, len(labels), seed=seed), kind="stable")
    chosen = np.zeros(len(labels), bool)
    for label, share in zip(classes, _shares(sizes, count), strict=True):
        chosen[order[labels[order] == label][:share]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """Largest remainders, within 1..size - 1 where `count` reaches for that."""
    quota = sizes * (count / sizes.sum())
    high = sizes - 1
    low = np.minimum(int(count >= len(sizes)), high)
    shares = np.floor(quota).astype(np.int64).clip(low, high)
    while (missing := count - shares.sum()) != 0:
        if missing > 0:
            shares[np.argmax(np.where(shares < high, quota - shares, -np.inf))] += 1
        else:
            shares[np.argmin(np.where(shares > low, quota - shares, np.inf))] -= 1
    return shares
