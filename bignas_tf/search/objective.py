"""Objectives: what a multi-objective search improves, and in which direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bignas_tf.checks import is_number, require, require_choice
from bignas_tf.search.budget import Budget
from bignas_tf.search.metrics import METRICS

ACCURACY = "accuracy"
DIRECTIONS = ("max", "min")


@dataclasses.dataclass(frozen=True)
class Objective:
    """A number that a child should have as much of as possible, or as little.

    Attributes:
        name: under which points have it, such as `accuracy` or `mmacs`.
        direction: "max" or "min"; accuracy can only be maximised, a registered metric only
            minimised.

    Raises:
        ValueError: for no identifier, or an impossible direction.
    """

    name: str
    direction: str

    def __post_init__(self):
        ok = isinstance(self.name, str) and self.name.isidentifier()
        require(ok, "name", "an identifier, such as mmacs", self.name)
        require_choice("direction", self.direction, DIRECTIONS)
        fixed = {ACCURACY: "max", **dict.fromkeys(METRICS, "min")}.get(self.name, self.direction)
        require(self.direction == fixed, "direction", f"{fixed} for {self.name}", self.direction)

    @property
    def maximised(self) -> bool:
        """Whether more is better."""
        return self.direction == "max"

    def __str__(self) -> str:
        return f"{self.name}:{self.direction}"


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Reads objectives as they are written on a command line.

    Args:
        text: names and directions, such as `accuracy:max,mmacs:min`.

    Returns:
        One `Objective` per name, in the order given.

    Raises:
        ValueError: for anything else, or a name given twice.
    """
    objectives = []
    for part in text.split(","):
        name, colon, direction = (piece.strip() for piece in part.partition(":"))
        require(bool(colon), "objectives", "written like accuracy:max,mmacs:min", text)
        objectives.append(Objective(name, direction))
    names = [objective.name for objective in objectives]
    require(len(set(names)) == len(names), "objectives", "given once each", text)
    return tuple(objectives)


def default_objectives(budgets: Iterable[Budget]) -> tuple[Objective, ...]:
    """Accuracy and the metrics of the budgets; MMACs where there is no budget."""
    limits = (part for budget in budgets for part in budget.parts)
    metrics = dict.fromkeys(limit.metric for limit in limits) or ("mmacs",)
    return (Objective(ACCURACY, "max"), *(Objective(metric, "min") for metric in metrics))


def matrix(points: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> np.ndarray:
    """The objectives of points, float64 `(points, objectives)`.

    Raises:
        ValueError: for a point without a finite number under an objective's name.
    """
    for point in points:
        for objective in objectives:
            value = point.get(objective.name)
            require(is_number(value), objective.name, "a number in every point", value)
    rows = [[point[objective.name] for objective in objectives] for point in points]
    return np.array(rows, np.float64).reshape(len(points), len(objectives))
