"""Accuracy over what a search limited besides MACs: parameters, latency, the size of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bignas_tf.report.drawing import COLOUR, Picture, plot_style, svg
from bignas_tf.report.inputs import Point, Run
from bignas_tf.report.labels import add_labels
from bignas_tf.report.targets import draw_targets
from bignas_tf.search.metrics import METRICS
from bignas_tf.search.pareto import front

_FAINTEST = 0.02  # share of the evaluated children that may lie below the plot


def draw_costs(run: Run) -> list[Picture]:
    """Draws held-out accuracy over each metric but MMACs that a budget limits.

    Args:
        run: the run.

    Returns:
        A plot per metric that is known of the evaluated children.
    """
    metrics = dict.fromkeys(name for child in run.selected for name in child.budget)
    found = []
    for metric in metrics:
        points = [point for point in run.points if point.cost(metric) is not None]
        if metric != "mmacs" and points:
            found.append(_draw(run, points, metric))
    return found


def _draw(run: Run, points: Sequence[Point], metric: str) -> Picture:
    rows: list[dict[str, Any]] = [
        {"cost": point.cost(metric), "accuracy": point.accuracy, "point": point} for point in points
    ]
    best = front(rows, cost="cost")
    chosen = {tuple(child.genotype.items()): child for child in run.selected}
    places = [
        (row["cost"], 100 * row["accuracy"], chosen[key].name)
        for row in rows
        if (key := tuple(row["point"].genotype.items())) in chosen
    ]
    low, high = _scale(rows, [row["accuracy"] for row in best] + [y / 100 for _, y, _ in places])
    with plot_style():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.add_subplot()
        _plot(axes, rows, best, places)
        limits = {child.budget[metric] for child in run.selected if metric in child.budget}
        for limit in sorted(limits):
            axes.axvline(limit, color=COLOUR["muted"], linestyle=":", linewidth=1)
        axes.set_ylim(low, high)
        unit = METRICS[metric].unit if metric in METRICS else ""
        axes.set_xlabel(f"{metric} ({unit})" if unit else metric)
        axes.set_ylabel("accuracy (%)")
        figure.legend(loc="outside upper left", ncols=3, fontsize=8.5, handlelength=1.4)
        figure.draw_without_rendering()  # the layout must be final before names are placed
        lines = [[(row["cost"], 100 * row["accuracy"]) for row in best]]
        add_labels(axes, places, lines, [], COLOUR["ink"], COLOUR["card"])
        words = f"Held-out accuracy over {metric} of {len(points)} evaluated children"
        notes = [f"{words}; dotted: the limits."]
        missing = len(run.points) - len(points)
        notes += [f"{missing} whose {metric} is not known are left out."] if missing else []
        targets = draw_targets(axes, run, [row["point"] for row in best], low, high, metric)
        return Picture(svg(figure, f"cost-{metric}", f"{words}."), notes, targets)


def _scale(rows: Sequence[dict[str, Any]], needed: Sequence[float]) -> tuple[float, float]:
    """Accuracies in percent between which the plot draws."""
    shares = sorted(row["accuracy"] for row in rows)
    heart = [*shares[int(_FAINTEST * len(shares)) :], *needed]
    margin = 0.06 * max(max(heart) - min(heart), 0.01)
    return 100 * (min(heart) - margin), 100 * min(max(heart) + margin, 1.004)


def _plot(
    axes: Axes,
    rows: Sequence[dict[str, Any]],
    best: Sequence[dict[str, Any]],
    places: Sequence[tuple[float, float, str]],
) -> None:
    def columns(some: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
        return [row["cost"] for row in some], [100 * row["accuracy"] for row in some]

    axes.plot(
        *columns(rows),
        "o",
        color=COLOUR["point"],
        markersize=3,
        markeredgewidth=0,
        label="evaluated children (held-out images)",
    )
    axes.plot(*columns(best), "-", color=COLOUR["front"], linewidth=1.3, label="front")
    if places:
        axes.plot(
            [x for x, _, _ in places],
            [y for _, y, _ in places],
            "o",
            color=COLOUR["front"],
            markersize=7,
            markerfacecolor=COLOUR["card"],
            markeredgewidth=1.6,
            zorder=3,
            label="selected",
        )
