"""Confidence intervals of accuracies and of their differences, all of 95 %."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
Z = 1.96
# Student's t for 1, 2, ... degrees of freedom; beyond, the last is a little too wide.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def wilson_interval(accuracy: float, images: int) -> Interval:
    """Of an accuracy over `images` test images.

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    centre = accuracy + Z * Z / (2 * images)
    spread = Z * math.sqrt(accuracy * (1 - accuracy) / images + Z * Z / (4 * images * images))
    scale = 1 + Z * Z / images
    return (centre - spread) / scale, (centre + spread) / scale


def t_interval(values: Sequence[float]) -> Interval:
    """Of the mean of two or more values, such as one per seed.

    For two variants of the same seeds give their differences: the interval is a paired one.
    """
    factor = _T[min(len(values) - 1, len(_T)) - 1]
    spread = factor * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.mean(values)
    return mean - spread, mean + spread


def paired_interval(right: np.ndarray, other: np.ndarray) -> Interval:
    """Of the difference in accuracy, `right` minus `other`, on the same images.

    Only images on which the two disagree add to its width.

    Args:
        right: whether each image is classified rightly, bool `(images,)`.
        other: the same of another network.
    """
    differences = right.astype(np.float64) - other
    spread = Z * float(differences.std()) / len(differences) ** 0.5
    mean = float(differences.mean())
    return mean - spread, mean + spread
