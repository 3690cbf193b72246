"""tf.data around the batches of a plan: read in threads, prefetched, exact after a resume."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from bignas_tf.data.augmentation import AugmentationPolicy
from bignas_tf.data.batches import ALL, BatchPlan
from bignas_tf.data.errors import DataError
from bignas_tf.data.split import Split

_PARALLEL_STEPS = 2  # files of one batch are decoded in parallel already
_PREFETCH = 4


class TrainingBatches(Iterator[dict[str, Any]]):
    """An endless iterator over training batches that raises errors as they were raised.

    tf.data turns an exception of a worker thread into one of its own; here the original one, such
    as `BrokenImageError`, reaches the caller.

    Args:
        plan: which examples each step gets.
        start_step: int, the step of the first batch.
        rows: of each batch, contiguous: those that this process trains on.

    Attributes:
        dataset: the `tf.data.Dataset`; each iteration of it starts at `start_step`.
        steps_per_epoch: int.
    """

    def __init__(self, plan: BatchPlan, start_step: int, rows: slice = ALL):
        self.steps_per_epoch = plan.steps_per_epoch
        self._plan = plan
        self._rows = rows
        self._signature = _signature(plan, len(range(plan.batch_size)[rows]))
        self._errors: dict[int, Exception] = {}
        self._lock = threading.Lock()
        self._own: Iterator[dict[str, Any]] | None = None
        self.dataset = self._build(start_step)

    def _build(self, start_step: int) -> tf.data.Dataset:
        signature = self._signature

        def read(step: tf.Tensor) -> dict[str, tf.Tensor]:
            values = tf.numpy_function(
                self._read, [step], [spec.dtype for spec in signature.values()], stateful=False
            )
            return {
                name: tf.ensure_shape(value, spec.shape)
                for (name, spec), value in zip(signature.items(), values, strict=True)
            }

        options = tf.data.Options()
        options.deterministic = True
        steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
        batches = steps.map(read, num_parallel_calls=_PARALLEL_STEPS)
        return batches.prefetch(_PREFETCH).with_options(options)

    def _read(self, step: np.ndarray) -> tuple[np.ndarray, ...]:
        try:
            batch = self._plan.read(int(step), self._rows)
        except Exception as error:
            with self._lock:
                self._errors[int(step)] = error
            # TensorFlow logs what it gets with its whole traceback: `iterate` raises that.
            raise RuntimeError(f"step {step}: {error}") from None
        return tuple(batch[name] for name in self._signature)

    def iterate(self, dataset: Iterable[Any]) -> Iterator[Any]:
        """Iterates over `dataset`, which must stem from `self.dataset`, with original errors.

        Args:
            dataset: `self.dataset` or a transformation of it.

        Raises:
            BrokenImageError: if a file cannot be decoded; at its own step, not before.
        """
        try:
            yield from dataset
        except tf.errors.OpError:
            with self._lock:
                errors = dict(self._errors)
            if not errors:
                raise
            # Steps are read side by side: a later one may have failed as well.
            raise errors[min(errors)] from None

    def __next__(self) -> dict[str, Any]:
        if self._own is None:
            self._own = self.iterate(self.dataset)
        return next(self._own)


def training_batches(
    split: Split, *, batch_size: int, policy: AugmentationPolicy, seed: int, start_step: int = 0
) -> TrainingBatches:
    """Returns endless augmented batches, the same from any step as without interruption.

    Args:
        split: the training examples.
        batch_size: int in 1..len(split), over all replicas; the remainder of an epoch is dropped.
        policy: the augmentation.
        seed: int in [0, 2**64), of the order and of the augmentation.
        start_step: int, 0 or more, the number of steps already trained.

    Returns:
        An iterator of dicts of tensors: 'images' uint8 `(batch, height, width, channels)`,
        'labels' int32 `(batch,)`, 'index' int64 `(batch,)`; with mixup also 'partners' and
        'shares', as in `BatchPlan.read`.

    Raises:
        DataError: if `batch_size`, `seed` or `start_step` is out of range.
    """
    plan = BatchPlan(split, batch_size=batch_size, policy=policy, seed=seed)
    if start_step < 0:
        raise DataError(f"`start_step` must be 0 or more. Received: {start_step}")
    return TrainingBatches(plan, start_step)


def _signature(plan: BatchPlan, size: int) -> dict[str, tf.TensorSpec]:
    signature = {
        "images": tf.TensorSpec((size, *plan.split.image_shape), tf.uint8),
        "labels": tf.TensorSpec((size,), tf.int32),
        "index": tf.TensorSpec((size,), tf.int64),
    }
    if plan.policy.mixup:
        signature["partners"] = signature["shares"] = tf.TensorSpec((size,), tf.int32)
    return signature
