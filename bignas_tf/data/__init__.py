"""Data: sources, augmentation, batches; TensorFlow is imported with `training_batches` only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bignas_tf.data.augmentation import AugmentationPolicy, epoch_order
from bignas_tf.data.batches import BatchPlan, evaluation_batches
from bignas_tf.data.errors import BrokenImageError, DataError, UnreadableImageError
from bignas_tf.data.loading import load_source
from bignas_tf.data.source import Source
from bignas_tf.data.split import Split, hold_out

if TYPE_CHECKING:
    from bignas_tf.data.pipeline import TrainingBatches, training_batches

__all__ = [
    "AugmentationPolicy",
    "BatchPlan",
    "BrokenImageError",
    "DataError",
    "Source",
    "Split",
    "UnreadableImageError",
    "TrainingBatches",
    "epoch_order",
    "evaluation_batches",
    "hold_out",
    "load_source",
    "training_batches",
]


def __getattr__(name: str) -> Any:
    if name in ("TrainingBatches", "training_batches"):
        from bignas_tf.data import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'bignas_tf.data' has no attribute '{name}'")
