"""A data set: named classes, a training split and a test split."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import tqdm

from bignas_tf.data.encoded import ON_BAD_IMAGE, BadImages
from bignas_tf.data.errors import DataError
from bignas_tf.data.split import Split, stratify
from bignas_tf.data.streams import Stream
from bignas_tf.optional import require_package

_MANY = 20_000  # images that take so long that even a log file should show progress


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    """What `load_source` was asked for, checked.

    Args:
        image_size: int, pixels, at least 1.
        channels: 1 or 3.
        test_fraction: float strictly between 0 and 1.
        seed: int in [0, 2**64).
        memory_limit_mb: float, at least 0, in MB (10^6 bytes).
        on_bad_image: 'stop' or 'skip'.
        encoded: whether images stay encoded until they are read, however few.
        test_only: whether only the test split is wanted.

    Attributes:
        bad_images: collects the images that are skipped; None where they stop the run.

    Raises:
        DataError: if an argument is out of its range.
    """

    image_size: int
    channels: int
    test_fraction: float
    seed: int
    memory_limit_mb: float
    on_bad_image: str = "stop"
    encoded: bool = False
    test_only: bool = False
    bad_images: BadImages | None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or self.image_size < 1:
            raise DataError(f"`image_size` must be at least 1 pixel. Received: {self.image_size!r}")
        if self.channels not in (1, 3):
            raise DataError(f"`channels` must be 1 or 3. Received: {self.channels!r}")
        if not 0 < self.test_fraction < 1:
            raise DataError(
                f"`test_fraction` must lie strictly between 0 and 1. Received: {self.test_fraction}"
            )
        if not self.memory_limit_mb >= 0:
            raise DataError(
                f"`memory_limit_mb` must be 0 or more. Received: {self.memory_limit_mb}"
            )
        if self.on_bad_image not in ON_BAD_IMAGE:
            raise DataError(
                f"`on_bad_image` must be one of {list(ON_BAD_IMAGE)}. "
                f"Received: {self.on_bad_image!r}"
            )
        if self.on_bad_image == "skip":
            object.__setattr__(self, "bad_images", BadImages())

    def in_memory(self, count: int) -> bool:
        """Whether `count` images are to be decoded when they are loaded."""
        decoded_bytes = count * self.image_size**2 * self.channels
        return not self.encoded and decoded_bytes / 1e6 <= self.memory_limit_mb

    def split_off_test(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ascending indices of a stratified (train, test) for int32 `labels`.

        With `test_only` there are none of train.

        Raises:
            DataError: if a class would be missing from either side.
        """
        count = round(len(labels) * self.test_fraction)
        classes, sizes = np.unique(labels, return_counts=True)
        if sizes.min() < 2 or not len(classes) <= count <= len(labels) - len(classes):
            raise DataError(
                f"`test_fraction` must leave every class an example on both sides: {len(labels)} "
                f"examples of {len(classes)} classes, the smallest with {sizes.min()}. "
                f"Received: {self.test_fraction}"
            )
        rest, chosen = stratify(labels, count, self.seed, Stream.TEST_SPLIT)
        return (rest[:0] if self.test_only else rest), chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A data set ready for training.

    Args:
        name: what `load_source` was given.
        classes: class names; a label is a position in them.
        train: training examples; none where only the test split was loaded.
        test: test examples.
        image_size: int, height and width of the images.
        channels: 1 or 3.
        fingerprint: 16 hexadecimal digits over class names, labels and file names of what was
            loaded: the same data in another folder has the same. Pixels are not read.
        bad_images: the images skipped so far, by whoever reads; None where they stop the run.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    image_size: int
    channels: int
    fingerprint: str
    bad_images: BadImages | None = None


def make_source(
    name: str,
    classes: Sequence[str],
    train: Split,
    test: Split,
    options: LoadOptions,
    *,
    files: Sequence[str] = (),
) -> Source:
    """Puts a source together.

    Args:
        name: what `load_source` was given.
        classes: class names in label order.
        train: training examples.
        test: test examples.
        options: how it was loaded.
        files: names that identify the examples, for the fingerprint.

    Raises:
        DataError: if there are fewer than 2 classes.
    """
    if len(classes) < 2:
        raise DataError(f"`{name}` must have at least 2 classes. Received: {list(classes)}")
    digest = hashlib.sha256(json.dumps([list(classes), list(files)]).encode())
    for split in (train, test):
        digest.update(len(split).to_bytes(8, "little") + split.labels.astype("<i4").tobytes())
    return Source(
        name=name,
        classes=tuple(classes),
        train=train,
        test=test,
        image_size=options.image_size,
        channels=options.channels,
        fingerprint=digest.hexdigest()[:16],
        bad_images=options.bad_images,
    )


def decoded(split: Split, title: str) -> Split:
    """Decodes a split to memory behind a progress bar."""
    quiet = not sys.stderr.isatty() and len(split) < _MANY
    with tqdm.tqdm(total=len(split), desc=f"decoding {title}", unit="img", disable=quiet) as bar:
        return split.in_memory(bar.update)


def optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports a module that an extra brings.

    Raises:
        DataError: if it is not installed; the message names the extra.
    """
    try:
        require_package(module.partition(".")[0], extra, purpose)
    except ModuleNotFoundError as error:
        raise DataError(str(error)) from error
    return importlib.import_module(module)
