"""The best trade-offs between a cost and a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from bignas_tf.search.objective import Objective, matrix

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


def front_of(points: Sequence[Point], objectives: Sequence[Objective]) -> list[Point]:
    """The points that no other point dominates in any number of objectives.

    Points equal in all of them stay together.

    Args:
        points: with a number under every objective's name.
        objectives: at least one.

    Returns:
        Points of the front by ascending minimised objectives in the order given, then by
        descending maximised ones.

    Raises:
        ValueError: for a point without a finite number.
    """
    signs = [-1 if objective.maximised else 1 for objective in objectives]
    values = matrix(points, objectives) * signs
    kept = [
        i
        for i, value in enumerate(values)
        if not ((values <= value).all(axis=1) & (values < value).any(axis=1)).any()
    ]
    order = sorted(range(len(objectives)), key=lambda i: objectives[i].maximised)
    return [points[i] for i in sorted(kept, key=lambda i: tuple(values[i, order]))]
