"""Examples in memory or on disk, and stratified parts of them."""

from __future__ import annotations

import dataclasses
import functools
import io
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from bignas_tf.data.encoded import BadImages, Records
from bignas_tf.data.errors import BrokenImageError, DataError
from bignas_tf.data.images import View, decode_image, fit, in_parallel, persistently
from bignas_tf.data.streams import Stream, raw

_CHUNK = 512  # images between two calls of `progress`


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labels with images, which are either in memory or decoded when they are read.

    Args:
        labels: int32 `(n,)`.
        images: uint8 `(n, height, width, channels)`, or None.
        paths: `n` file names, or None.
        image_size: int, the side that files and records are decoded to; with those only.
        channels: 1 or 3, what they are decoded to; with those only.
        records: `n` encoded images, or None.
        bad_images: collects the images that cannot be decoded; in the place of one stands the
            next of its class in this split, the first coming after the last. None refuses them.
        broken: bool `(n,)`, which of `images` could not be decoded; None for none of them.
        whole: the split that this is a `share` of, or None.
        positions: int64 `(n,)`, in `whole`.

    Raises:
        DataError: if not exactly one of `images`, `paths` and `records` is given, or their
            length or type does not fit.
    """

    labels: np.ndarray
    images: np.ndarray | None = None
    paths: tuple[str, ...] | None = None
    image_size: int | None = None
    channels: int | None = None
    records: Records | None = None
    bad_images: BadImages | None = None
    broken: np.ndarray | None = None
    whole: Split | None = None
    positions: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != np.int32 or self.labels.ndim != 1:
            raise DataError(
                f"`labels` must be int32 with one dimension. "
                f"Received: {self.labels.dtype} {self.labels.shape}"
            )
        contents: list[Any] = [self.images, self.paths, self.records]
        given = [content for content in contents if content is not None]
        if len(given) != 1:
            raise DataError(
                "Exactly one of `images`, `paths` and `records` must be given. "
                f"Received: {len(given)} of them"
            )
        if len(given[0]) != len(self.labels):
            raise DataError(
                f"`labels` must be as many as there are images, {len(given[0])}. "
                f"Received: {len(self.labels)}"
            )
        if self.images is not None and (self.images.dtype != np.uint8 or self.images.ndim != 4):
            raise DataError(
                f"`images` must be uint8 (n, height, width, channels). "
                f"Received: {self.images.dtype} {self.images.shape}"
            )
        if self.images is None and (self.image_size is None or self.channels not in (1, 3)):
            raise DataError(
                "`paths` and `records` need an `image_size` and 1 or 3 `channels`. "
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
        """Returns the examples `indices`, int `(k,)`, in that order, as a part of its own.

        In the place of an image that cannot be decoded stands one of the part.
        """
        part = self._chosen(np.asarray(indices, np.int64))
        if part.images is not None and part.broken is not None:
            _fill(part.images, part.labels, part.broken)  # no image may be in two parts
        return part

    def share(self, indices: np.ndarray) -> Split:
        """Returns the examples `indices`, int `(k,)`, as they are read in this split.

        For workers that evaluate a split together: however it is divided, the same images
        stand in the places of those that cannot be decoded.

        Raises:
            DataError: if there are none.
        """
        indices = np.asarray(indices, np.int64)
        if not len(indices):
            raise DataError(
                f"A share of a split must hold at least one image: {len(self)} images are for at "
                f"most {len(self)} workers. Received: an empty share"
            )
        return dataclasses.replace(self._chosen(indices), whole=self, positions=indices)

    def _chosen(self, indices: np.ndarray) -> Split:
        return dataclasses.replace(
            self,
            labels=self.labels[indices],
            images=None if self.images is None else self.images[indices],
            paths=None if self.paths is None else tuple(self.paths[i] for i in indices),
            records=None if self.records is None else self.records.take(indices),
            broken=None if self.broken is None else self.broken[indices],
            whole=None,
            positions=None,
        )

    def read(self, indices: np.ndarray, views: Sequence[View] | None = None) -> np.ndarray:
        """Returns the images `indices`, int `(k,)`, decoding in parallel what is not in memory.

        Args:
            indices: positions in this split.
            views: what each of them shows of itself; None for the centre squares.

        Returns:
            uint8 `(k, height, width, channels)`.

        Raises:
            BrokenImageError: for the first image that cannot be decoded, without `bad_images`.
            UnreadableImageError: for one that cannot be read at all.
            DataError: with them, if no image of its class can.
        """
        if self.images is not None and views is None:
            return self.images[indices]
        found = np.empty((len(indices), *self.image_shape), np.uint8)

        def read(row: int) -> None:
            found[row] = self._read(int(indices[row]), None if views is None else views[row])

        in_parallel(read, len(found))
        return found

    def _read(self, position: int, view: View | None) -> np.ndarray:
        if self.whole is not None and self.positions is not None:
            return self.whole._read(int(self.positions[position]), view)
        for candidate in self._substitutes(position):
            try:
                return self._decode(candidate, view)
            except BrokenImageError as error:
                if self.bad_images is None:
                    raise
                self.bad_images.add(error)
        raise _none_left(int(self.labels[position]))

    def _substitutes(self, position: int) -> Iterator[int]:
        """Yields `position`, then what may stand in its place."""
        yield position
        same = np.flatnonzero(self.labels == self.labels[position])
        yield from map(int, np.roll(same, -1 - int(np.searchsorted(same, position)))[:-1])

    def _decode(self, position: int, view: View | None) -> np.ndarray:
        size, _, channels = self.image_shape
        if self.images is not None:
            pixels = self.images[position]
            image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
            return fit(image, size, channels, view)
        if self.paths is not None:
            return decode_image(self.paths[position], size, channels, view=view)
        if self.records is None:
            raise AssertionError("a split is checked when it is made")
        name = self.records.name(position)
        file = io.BytesIO(persistently(functools.partial(self.records.read, position), name))
        return decode_image(name, size, channels, file, view)

    def in_memory(self, progress: Callable[[int], Any]) -> Split:
        """Returns the same examples, decoded.

        Args:
            progress: called with a number of images whenever that many more are decoded.

        Raises:
            BrokenImageError: as `read`.
            DataError: as `read`.
        """
        if self.whole is not None and self.positions is not None:
            return self.whole.in_memory(progress).share(self.positions)
        images = np.zeros((len(self), *self.image_shape), np.uint8)
        broken = np.zeros(len(self), bool)

        def decode(start: int, row: int) -> None:
            position = start + row
            try:
                images[position] = self._decode(position, None)
            except BrokenImageError as error:
                if self.bad_images is None:
                    raise
                self.bad_images.add(error)
                broken[position] = True

        for start in range(0, len(self), _CHUNK):
            count = min(_CHUNK, len(self) - start)
            in_parallel(functools.partial(decode, start), count)
            progress(count)
        _fill(images, self.labels, broken)
        return Split(self.labels, images=images, bad_images=self.bad_images, broken=broken)


def _fill(images: np.ndarray, labels: np.ndarray, broken: np.ndarray) -> None:
    """Puts in the place of each broken image the next of its class."""
    for position in np.flatnonzero(broken):
        good = np.flatnonzero((labels == labels[position]) & ~broken)
        if not len(good):
            raise _none_left(int(labels[position]))
        images[position] = images[good[np.searchsorted(good, position) % len(good)]]


def _none_left(label: int) -> DataError:
    return DataError(
        f"Each class must have an image that can be decoded, in every part of the data. "
        f"Received: none of label {label}"
    )


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
