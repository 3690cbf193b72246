"""Hypervolume: how much better than a reference point a set of points is, in one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bignas_tf.checks import is_number, require
from bignas_tf.optional import require_package
from bignas_tf.search.objective import Objective, matrix


def hypervolume(
    points: Sequence[Mapping[str, Any]],
    objectives: Sequence[Objective],
    reference: Mapping[str, float],
) -> float:
    """The volume between a reference point and all that some point is at least as good as.

    Exact. Points that are worse than the reference in some objective count for nothing.

    Args:
        points: with numbers under the objectives' names.
        objectives: at least one.
        reference: a number per objective, such as the least accuracy and the largest cost of
            interest. Volumes compare only where it is the same.

    Returns:
        0 or more, in the product of the objectives' units.

    Raises:
        ValueError: for no objectives, or one that a point or the reference lacks.
        ModuleNotFoundError: without moocore.

    Reference:
        Zitzler and Thiele, "Multiobjective Evolutionary Algorithms: A Comparative Case Study
        and the Strength Pareto Approach", IEEE TEVC 3(4), 1999.
    """
    corner = _corner(objectives, reference)
    require_package("moocore", "search", "The hypervolume")
    import moocore

    maximise = [objective.maximised for objective in objectives]
    return float(moocore.hypervolume(matrix(points, objectives), ref=corner, maximise=maximise))


def hypervolume_curve(
    points: Sequence[Mapping[str, Any]],
    objectives: Sequence[Objective],
    reference: Mapping[str, float],
) -> list[float]:
    """The hypervolume of the first point, of the first two, and so on.

    Args:
        points: in the order of their evaluation.
        objectives: as of `hypervolume`.
        reference: as of `hypervolume`.

    Returns:
        One hypervolume per point, none below the one before.

    Raises:
        ValueError: as `hypervolume`.
        ModuleNotFoundError: without moocore.
    """
    corner = _corner(objectives, reference)
    require_package("moocore", "search", "The hypervolume")
    import moocore

    maximise = [objective.maximised for objective in objectives]
    front = np.empty((0, len(objectives)))
    volume, curve = 0.0, []
    for row in matrix(points, objectives):
        # Only what is better than all before it can change the volume.
        if not np.any(np.all(_at_least(front, row, maximise), axis=1)):
            front = moocore.filter_dominated(np.vstack([front, row]), maximise=maximise)
            # Another order of summation must not make it fall.
            found = float(moocore.hypervolume(front, ref=corner, maximise=maximise))
            volume = max(volume, found)
        curve.append(volume)
    return curve


def worst_corner(
    points: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]
) -> dict[str, float]:
    """The worst value of every objective among the points: a reference for all of them.

    Raises:
        ValueError: for no points, or one that lacks an objective.
    """
    require(len(points) > 0, "points", "at least one", points)
    columns = matrix(points, objectives).T
    return {
        objective.name: float(column.min() if objective.maximised else column.max())
        for objective, column in zip(objectives, columns, strict=True)
    }


def _corner(objectives: Sequence[Objective], reference: Mapping[str, float]) -> np.ndarray:
    require(len(objectives) > 0, "objectives", "at least one", objectives)
    for objective in objectives:
        value = reference.get(objective.name)
        require(is_number(value), "reference", f"with a number for {objective.name}", reference)
    return np.array([reference[objective.name] for objective in objectives], np.float64)


def _at_least(front: np.ndarray, row: np.ndarray, maximise: Sequence[bool]) -> np.ndarray:
    """In which objectives the rows of a front are as good as `row`, or better."""
    return np.where(maximise, front >= row, front <= row)
