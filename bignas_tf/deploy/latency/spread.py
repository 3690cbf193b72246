"""How sure a median over rounds is."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST_ROUNDS = 6  # of five values even the whole range covers the median with 93.75 % only


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval that holds the median of what `values` were drawn from, with 95 % or more.

    Its ends are values themselves, whose ranks follow from coin tosses alone: nothing is
    assumed about the distribution, so that outliers of a disturbed machine do no harm.

    Args:
        values: one per round, the rounds independent.

    Returns:
        `(low, high)`, or None for fewer than `LEAST_ROUNDS` values.

    Reference:
        Conover, "Practical Nonparametric Statistics", 1999, section 3.2.
    """
    count = len(values)
    if count < LEAST_ROUNDS:
        return None
    outside = 0.0  # chance that fewer than `rank + 1` of the values lie below the median
    rank = 0
    for below in range(count // 2):
        outside += math.comb(count, below) / 2**count
        if 2 * outside > 0.05:
            break
        rank = below
    ordered = sorted(values)
    return ordered[rank], ordered[count - 1 - rank]


def relative_spread(values: Sequence[float]) -> float | None:
    """Half the width of `median_interval`, relative to its middle.

    Args:
        values: positive, one per round.

    Returns:
        0.02 for a median known to 2 %; None for fewer than `LEAST_ROUNDS` values.
    """
    interval = median_interval(values)
    if interval is None:
        return None
    low, high = interval
    return (high - low) / (high + low)
