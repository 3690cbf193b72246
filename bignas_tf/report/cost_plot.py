"""Accuracy over what a search limited besides MACs: parameters, latency, the size of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from bignas_tf.report.drawing import COLOUR, Picture, plot_style, svg
from bignas_tf.report.held_out import draw_held_out, fit_scale
from bignas_tf.report.inputs import Point, Run
from bignas_tf.report.labels import add_labels
from bignas_tf.report.targets import draw_targets
from bignas_tf.search.metrics import METRICS
from bignas_tf.search.pareto import front


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
    chosen = [row for row in rows if run.names_of(row["point"])]
    scale = fit_scale(
        [row["accuracy"] for row in rows], [row["accuracy"] for row in (*best, *chosen)]
    )
    with plot_style():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.add_subplot()
        places = [[(row["cost"], row["accuracy"]) for row in some] for some in (rows, best, chosen)]
        draw_held_out(axes, *places)
        limits = {child.budget[metric] for child in run.selected if metric in child.budget}
        for limit in sorted(limits):
            axes.axvline(limit, color=COLOUR["muted"], linestyle=":", linewidth=1)
        axes.set_ylim(scale.low, scale.high)
        unit = METRICS[metric].unit if metric in METRICS else ""
        axes.set_xlabel(f"{metric} ({unit})" if unit else metric)
        axes.set_ylabel("accuracy (%)")
        figure.legend(loc="outside upper left", ncols=3, fontsize=8.5, handlelength=1.4)
        figure.draw_without_rendering()  # the layout must be final before names are placed
        labels = [
            (row["cost"], 100 * row["accuracy"], name)
            for row in chosen
            for name in run.names_of(row["point"])
        ]
        lines = [[(row["cost"], 100 * row["accuracy"]) for row in best]]
        add_labels(axes, labels, lines, [])
        words = f"Held-out accuracy over {metric} of {len(points)} evaluated children"
        notes = [f"{words}; dotted: the limits."]
        missing = len(run.points) - len(points)
        notes += [f"{missing} whose {metric} is not known are left out."] if missing else []
        targets = draw_targets(
            axes, run, [row["point"] for row in best], scale.low, scale.high, metric
        )
        return Picture(svg(figure, f"cost-{metric}", f"{words}."), notes, targets)
