"""Batches as functions of the step, in NumPy: what every trainer reads."""

from __future__ import annotations

import concurrent.futures
import functools
import operator
from collections.abc import Iterator

import numpy as np

from bignas_tf.data.augmentation import AugmentationPolicy, epoch_order
from bignas_tf.data.errors import DataError
from bignas_tf.data.split import Split

Batch = dict[str, np.ndarray]
ALL = slice(None)


class BatchPlan:
    """Says which augmented examples step k trains on, for any k, without the steps before.

    Each epoch visits its own permutation of the examples; what does not fill a batch is dropped.
    How an example is augmented does not depend on its batch; only mixup takes its partner there.
    Safe to call from several threads.

    Args:
        split: the training examples.
        batch_size: int in 1..len(split), over all replicas.
        policy: the augmentation.
        seed: int in [0, 2**64), of the order and of the augmentation.

    Raises:
        DataError: if `batch_size` is out of range, or the images are too small for `policy`.
    """

    def __init__(self, split: Split, *, batch_size: int, policy: AugmentationPolicy, seed: int):
        _check_batch_size(batch_size)
        if batch_size > len(split):
            raise DataError(
                f"`batch_size` must be at most the number of training examples, {len(split)}. "
                f"Received: {batch_size}"
            )
        policy.check_size(*split.image_shape[:2])
        self.split = split
        self.batch_size = batch_size
        self.policy = policy
        self.seed = seed
        self.steps_per_epoch = len(split) // batch_size
        # Two epochs: threads work on both sides of an epoch's end.
        self._epoch = functools.lru_cache(maxsize=2)(self._draw_epoch)
        self._epoch(0)  # a bad seed fails here, not in a thread

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        n = len(self.split)
        return epoch_order(n, self.seed, epoch), self.policy.draw(n, self.seed, epoch)

    def indices(self, step: int) -> np.ndarray:
        """Returns the examples of a step, int64 `(batch,)`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order, _ = self._epoch(epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def draws(self, step: int) -> dict[str, np.ndarray]:
        """Returns the rows of `policy.draw`'s arrays for the examples of a step."""
        _, draws = self._epoch(step // self.steps_per_epoch)
        index = self.indices(step)
        return {name: values[index] for name, values in draws.items()}

    def positions(self, rows: slice = ALL) -> np.ndarray:
        """Returns where in a batch the images stand that `read` reads, int64 `(k,)`."""
        positions = np.arange(self.batch_size)
        count = len(positions[rows])
        if count == self.batch_size:
            return positions
        partners = positions[::-1][rows][::-1] if self.policy.mixup else positions[:0]
        # The last of these are the partners of the first, as in a batch of their own.
        return np.concatenate([positions[rows], partners])

    def read(self, step: int, rows: slice = ALL) -> Batch:
        """Reads and augments the batch of a step, or a part of it.

        Args:
            step: int, 0 or more, counted from the start of the run.
            rows: of the batch, contiguous; of other images only those that mixup adds are read.

        Returns:
            'images' uint8 `(batch, height, width, channels)`, 'labels' int32 `(batch,)` and
            'index' int64 `(batch,)`, the examples' positions in the split. With mixup also
            'partners' int32 `(batch,)`, the labels of the images mixed in, and 'shares' int32
            `(batch,)` in 0..256, 256ths that each image kept of itself.

        Raises:
            BrokenImageError: if a file cannot be decoded.
        """
        count, positions = len(range(self.batch_size)[rows]), self.positions(rows)
        index = self.indices(step)[positions]
        draws = {name: values[positions] for name, values in self.draws(step).items()}
        images = self.split.read(index, self.policy.views(draws))
        images = self.policy.apply(images, draws)
        labels = self.split.labels[index]
        batch = {"images": images, "labels": labels, "index": index}
        if self.policy.mixup:
            batch |= {"partners": labels[::-1].copy(), "shares": draws["shares"]}
        return {name: values[:count] for name, values in batch.items()}


def evaluation_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Iterates over a split in order, without augmentation, the next batch read ahead.

    Args:
        split: the examples.
        batch_size: int, at least 1; the last batch may be smaller.

    Yields:
        'images' uint8 `(batch, height, width, channels)`, 'labels' int32 `(batch,)` and 'index'
        int64 `(batch,)`.

    Raises:
        DataError: if `batch_size` is less than 1.
        BrokenImageError: if a file cannot be decoded.
    """
    _check_batch_size(batch_size)
    return _in_order(split, batch_size)


def _in_order(split: Split, batch_size: int) -> Iterator[Batch]:
    def read(start: int) -> Batch:
        index = np.arange(start, min(start + batch_size, len(split)))
        return {"images": split.read(index), "labels": split.labels[index], "index": index}

    with concurrent.futures.ThreadPoolExecutor(1, "bignas-evaluation") as ahead:
        pending = ahead.submit(read, 0) if len(split) else None
        for start in range(batch_size, len(split) + batch_size, batch_size):
            if pending is None:
                return
            batch = pending.result()
            pending = ahead.submit(read, start) if start < len(split) else None
            yield batch


def _check_batch_size(batch_size: int) -> None:
    if operator.index(batch_size) < 1:
        raise DataError(f"`batch_size` must be at least 1. Received: {batch_size}")
