"""The best trade-offs between a cost and a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Point = TypeVar("Point", bound=Mapping[str, Any])


def front(points: Iterable[Point], cost: str = "mmacs", value: str = "accuracy") -> list[Point]:
    """The points that no other point dominates.

    One point dominates another if it costs no more, is worth no less, and differs in one
    of the two. Points equal in both stay together.

    Args:
        points: with numbers under `cost` and `value`.
        cost: name of what should be low.
        value: name of what should be high.

    Returns:
        Points of the front by ascending cost (and so ascending value).
    """
    ordered = sorted(points, key=lambda point: (point[cost], -point[value]))
    kept: list[Point] = []
    best = (math.inf, -math.inf)
    for point in ordered:
        here = (point[cost], point[value])
        if point[value] > best[1]:
            best = here
        if here == best:
            kept.append(point)
    return kept
