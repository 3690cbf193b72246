"""Losses of one example each; whoever sums them divides by the global batch.

A mean taken here would be over a replica's share of the batch, and optimizers
sum gradients over replicas.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def label_cross_entropy(labels: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy against integer labels, the biggest child's loss.

    Smoothing mixes the one-hot target with the uniform distribution over all
    classes: `(1 - s) * one_hot + s / classes`.

    Args:
        labels: `(batch,)`, int, 0 to classes - 1.
        logits: `(batch, classes)`, float. Half precision is computed in float32.
        label_smoothing: float, 0 <= s < 1.

    Returns:
        `(batch,)`, nats, at least float32. NaN where a label is out of range: its
        one-hot row would be all zeros and train on nothing without a sign.

    Raises:
        ValueError: on other ranks, float labels, or `label_smoothing` out of range.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"`label_smoothing` must be in [0, 1). Received: {label_smoothing}")
    labels = ops.convert_to_tensor(labels)
    log_probabilities = _log_softmax(logits, "logits")
    label_dtype = keras.backend.standardize_dtype(labels.dtype)
    if len(labels.shape) != 1 or "int" not in label_dtype:
        raise ValueError(
            "`labels` must be integers of shape `(batch,)`. "
            f"Received: {label_dtype} of shape {tuple(labels.shape)}"
        )
    classes = log_probabilities.shape[-1]
    dtype = log_probabilities.dtype
    target = ops.one_hot(labels, classes, dtype=dtype)
    target = (1.0 - label_smoothing) * target + label_smoothing / classes
    loss = -ops.sum(target * log_probabilities, axis=-1)
    known = ops.logical_and(labels >= 0, labels < classes)
    return ops.where(known, loss, ops.cast(float("nan"), dtype))


def soft_cross_entropy(teacher_logits: Any, student_logits: Any) -> Any:
    """Cross-entropy against a teacher's predictions: in-place distillation.

    Temperature 1, summed over classes. No gradient reaches the teacher.

    Args:
        teacher_logits: `(batch, classes)`, float.
        student_logits: `(batch, classes)`, float.

    Returns:
        `(batch,)`, nats, at least float32. Its least value is the entropy of the
        teacher's prediction, not 0.

    Raises:
        ValueError: if either is not `(batch, classes)` or the classes differ.

    Reference:
        Yu et al., "BigNAS", ECCV 2020, section 3.1.
    """
    teacher = ops.exp(_log_softmax(ops.stop_gradient(teacher_logits), "teacher_logits"))
    student = _log_softmax(student_logits, "student_logits")
    if teacher.shape[-1] != student.shape[-1]:
        raise ValueError(
            "`teacher_logits` and `student_logits` must have the same classes. "
            f"Received: {teacher.shape[-1]} and {student.shape[-1]}"
        )
    return -ops.sum(ops.cast(teacher, student.dtype) * student, axis=-1)


def _log_softmax(logits: Any, name: str) -> Any:
    logits = ops.convert_to_tensor(logits)
    if len(logits.shape) != 2:
        raise ValueError(
            f"`{name}` must have shape `(batch, classes)`. Received: shape {tuple(logits.shape)}"
        )
    if keras.backend.standardize_dtype(logits.dtype) in ("float16", "bfloat16"):
        logits = ops.cast(logits, "float32")
    return ops.log_softmax(logits, axis=-1)
