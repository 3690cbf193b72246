"""Losses of one example each; whoever sums them divides by the global batch.

A mean taken here would be over a replica's share of the batch, and optimizers
sum gradients over replicas.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bignas_tf.checks import require, require_rate


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
    require_rate("label_smoothing", label_smoothing)
    labels = ops.convert_to_tensor(labels)
    log_probabilities = _log_softmax(logits, "logits")
    label_dtype = keras.backend.standardize_dtype(labels.dtype)
    require(
        len(labels.shape) == 1 and "int" in label_dtype,
        "labels",
        "integers of shape `(batch,)`",
        (label_dtype, tuple(labels.shape)),
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
        Yu et al., "BigNAS", ECCV 2020.
    """
    teacher = ops.exp(_log_softmax(ops.stop_gradient(teacher_logits), "teacher_logits"))
    student = _log_softmax(student_logits, "student_logits")
    require(
        teacher.shape[-1] == student.shape[-1],
        "student_logits",
        f"of the teacher's {teacher.shape[-1]} classes",
        tuple(student.shape),
    )
    return -ops.sum(ops.cast(teacher, student.dtype) * student, axis=-1)


def _log_softmax(logits: Any, name: str) -> Any:
    logits = ops.convert_to_tensor(logits)
    require(len(logits.shape) == 2, name, "of shape `(batch, classes)`", tuple(logits.shape))
    if keras.backend.standardize_dtype(logits.dtype) in ("float16", "bfloat16"):
        logits = ops.cast(logits, "float32")
    return ops.log_softmax(logits, axis=-1)
