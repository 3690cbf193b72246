"""Which of the evaluated children are chosen, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bignas_tf.checks import require
from bignas_tf.search.budget import Budget, check_feasible
from bignas_tf.search.evaluator import Points, loss_of
from bignas_tf.spaces import Space


def choose(known: Points, budgets: Sequence[Budget], names: Sequence[str]) -> list[dict[str, Any]]:
    """The best evaluated child under each budget, without the budgets that have none yet."""
    points = [(known.space.genotype(point["genotype"]), point) for point in known.points]
    selected: list[dict[str, Any]] = []
    for budget, name in zip(budgets, names, strict=True):
        ranks = [
            (
                not budget.uses_enough(genotype),
                -point["accuracy"],
                loss_of(point),
                budget.cost(genotype),
                genotype.values,
                index,
            )
            for index, (genotype, point) in enumerate(points)
            if budget.allows(genotype)
        ]
        if not ranks:
            continue
        genotype, point = points[min(ranks)[-1]]
        entry = {
            "name": name,
            "budget": budget.to_json(),
            "genotype": point["genotype"],
            "accuracy": point["accuracy"],
            "mmacs": point["mmacs"],
            "params_m": point["params_m"],
            **budget.costs(genotype),
            "resolution": genotype.spec().input_shape[0],
            "split": point["split"],
        }
        twins = [other["name"] for other in selected if other["genotype"] == point["genotype"]]
        selected.append({**entry, "same_as": twins[0]} if twins else entry)
    return selected


def check_names(budgets: Sequence[Budget], names: Sequence[str] | None) -> list[str]:
    """The names of the children to choose, by default those of their budgets.

    Raises:
        ValueError: unless there is one per budget, none empty, none twice, each fit for a file.
    """
    require(len(budgets) > 0, "budgets", "at least one", budgets)
    chosen = [budget.name for budget in budgets] if names is None else list(names)
    ok = len(chosen) == len(budgets) and len(set(chosen)) == len(chosen) and all(chosen)
    require(ok, "names", f"{len(budgets)} different ones, one per budget", chosen)
    for name in chosen:  # of files: children/NAME.keras
        require(Path(name).name == name, "names", "those of files, without folders", name)
    return chosen


def check_search(space: Space, budgets: Sequence[Budget], names: Sequence[str] | None) -> list[str]:
    """The names of the children, after what a search refuses before it touches its folder.

    Raises:
        ValueError: for an infeasible budget or unfit names.
    """
    for budget in budgets:
        check_feasible(budget, space)
    return check_names(budgets, names)
