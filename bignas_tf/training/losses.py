"""Losses of one example each; whoever sums them divides by the global batch.

A mean taken here would be over a replica's share of the batch, and optimizers
sum gradients over replicas.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops as K

from bignas_tf.checks import require, require_int, require_rate


def label_cross_entropy(labels: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy against labels, the biggest child's loss.

    Smoothing mixes the target, one-hot for an integer label, with the uniform
    distribution over all classes: `(1 - s) * target + s / classes`.

    Args:
        labels: `(batch,)`, int, 0 to classes - 1; or `(batch, classes)`, float,
            probabilities such as `mixed_targets`.
        logits: `(batch, classes)`, float. Half precision is computed in float32.
        label_smoothing: float, 0 <= s < 1.

    Returns:
        `(batch,)`, nats, at least float32. NaN where an integer label is out of
        range: its one-hot row would be all zeros and train on nothing without a sign.

    Raises:
        ValueError: if `labels` is neither, or on `label_smoothing` out of range.
    """
    require_rate("label_smoothing", label_smoothing)
    labels = K.convert_to_tensor(labels)
    log_probabilities = _log_softmax(logits, "logits")
    label_dtype = keras.backend.standardize_dtype(labels.dtype)
    classes = log_probabilities.shape[-1]
    dtype = log_probabilities.dtype
    if len(labels.shape) == 1 and "int" in label_dtype:
        target = _one_hot(labels, classes, dtype)
    else:
        require(
            len(labels.shape) == 2 and labels.shape[-1] == classes and "float" in label_dtype,
            "labels",
            f"integers of shape `(batch,)` or floats of shape `(batch, {classes})`",
            (label_dtype, tuple(labels.shape)),
        )
        target = K.cast(labels, dtype)
    target = (1.0 - label_smoothing) * target + label_smoothing / classes
    return -K.sum(target * log_probabilities, axis=-1)


def mixed_targets(labels: Any, partners: Any, shares: Any, classes: int) -> Any:
    """Probabilities that mixup's images are trained on, mixed as the images are.

    Args:
        labels: `(batch,)`, int, 0 to classes - 1.
        partners: `(batch,)`, int, labels of the images mixed in.
        shares: `(batch,)`, int, 0 to 256: 256ths that an image kept of itself.
        classes: int, at least 1.

    Returns:
        `(batch, classes)`, float32: `shares / 256` at the label plus the rest at the
        partner. A row of NaN where a label, a partner or a share is out of range.

    Raises:
        ValueError: if an argument is not of that shape and type.

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    require_int("classes", classes)
    arguments = {"labels": labels, "partners": partners, "shares": shares}
    tensors = {name: K.convert_to_tensor(value) for name, value in arguments.items()}
    for name, tensor in tensors.items():
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        require(
            len(tensor.shape) == 1 and "int" in dtype,
            name,
            "integers of shape `(batch,)`",
            (dtype, tuple(tensor.shape)),
        )
    share = K.expand_dims(K.cast(tensors["shares"], "float32") / 256.0, -1)
    share = _nan_unless(_within(tensors["shares"], 257), share)
    own = _one_hot(tensors["labels"], classes, "float32")
    other = _one_hot(tensors["partners"], classes, "float32")
    return share * own + (1.0 - share) * other


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
    teacher = K.exp(_log_softmax(K.stop_gradient(teacher_logits), "teacher_logits"))
    student = _log_softmax(student_logits, "student_logits")
    require(
        teacher.shape[-1] == student.shape[-1],
        "student_logits",
        f"of the teacher's {teacher.shape[-1]} classes",
        tuple(student.shape),
    )
    return -K.sum(K.cast(teacher, student.dtype) * student, axis=-1)


def _one_hot(labels: Any, classes: int, dtype: Any) -> Any:
    return _nan_unless(_within(labels, classes), K.one_hot(labels, classes, dtype=dtype))


def _within(values: Any, count: int) -> Any:
    return K.expand_dims(K.logical_and(values >= 0, values < count), -1)


def _nan_unless(known: Any, values: Any) -> Any:
    return K.where(known, values, K.cast(float("nan"), values.dtype))


def _log_softmax(logits: Any, name: str) -> Any:
    logits = K.convert_to_tensor(logits)
    require(len(logits.shape) == 2, name, "of shape `(batch, classes)`", tuple(logits.shape))
    if keras.backend.standardize_dtype(logits.dtype) in ("float16", "bfloat16"):
        logits = K.cast(logits, "float32")
    return K.log_softmax(logits, axis=-1)
