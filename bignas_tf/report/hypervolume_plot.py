"""How the front grew in the course of the search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bignas_tf.report.drawing import COLOUR, Picture, plot_style, svg
from bignas_tf.report.inputs import Point
from bignas_tf.search.hypervolume import hypervolume_curve, worst_corner
from bignas_tf.search.objective import parse_objectives

_NAMED = 7  # phases, at most
OBJECTIVES = parse_objectives("accuracy:max,mmacs:min")


def draw_hypervolume(points: Sequence[Point]) -> Picture | None:
    """Draws the hypervolume after each evaluation.

    It is a share of the rectangle between the worst and the best accuracy and MMACs of all
    points: 100 % would be one child that is the cheapest and the most accurate.

    Args:
        points: in the order of their evaluation.

    Returns:
        The plot; None where all points are alike in accuracy or MMACs, so that there is no
        rectangle, or where moocore is not installed, which the page then says.
    """
    rows = [{"accuracy": point.accuracy, "mmacs": point.mmacs} for point in points]
    if not rows:
        return None
    corner = worst_corner(rows, OBJECTIVES)
    box = max(row["accuracy"] for row in rows) - corner["accuracy"]
    box *= corner["mmacs"] - min(row["mmacs"] for row in rows)
    if box <= 0:
        return None
    try:
        curve = hypervolume_curve(rows, OBJECTIVES, corner)
    except ModuleNotFoundError:
        return None
    shares = [100 * volume / box for volume in curve]
    with plot_style():
        figure = Figure(figsize=(9, 2.6), layout="constrained")
        axes = figure.add_subplot()
        numbers = range(1, len(shares) + 1)
        axes.plot(numbers, shares, "-", color=COLOUR["front"], drawstyle="steps-post")
        axes.set_xlim(1, len(shares))
        axes.set_ylim(min(shares), min(shares) + 1.2 * max(shares[-1] - min(shares), 1))  # names
        axes.set_xlabel("evaluations")
        axes.set_ylabel("hypervolume (%)")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        phases = _phases(points)
        for start, _ in phases:
            axes.axvline(start, color=COLOUR["grid"], linewidth=0.8)
        # Of many phases only some are named: names run neither into each other nor off the plot.
        named = phases[:: math.ceil(len(phases) / _NAMED)]
        for start, phase in (each for each in named if each[0] <= 0.9 * len(shares)):
            text = axes.annotate(
                phase,
                (start, 1),
                (3, -2),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                va="top",
                color=COLOUR["muted"],
                fontsize=8,
            )
            text.set_parse_math(False)
        return Picture(svg(figure, "hypervolume", _description(shares)), _notes(shares))


def _phases(points: Sequence[Point]) -> list[tuple[int, str]]:
    """Each phase with the number of its first evaluation."""
    groups = itertools.groupby(points, key=lambda point: point.phase)
    return [(next(group).number, phase) for phase, group in groups]


def _notes(shares: Sequence[float]) -> list[str]:
    last = next(number for number, share in enumerate(shares, 1) if share == shares[-1])
    return [
        "Hypervolume: what the front so far dominates, as a share of the rectangle between the "
        "worst and the best held-out accuracy and MMACs of all evaluated children.",
        f"It last grew with evaluation {last} of {len(shares)}.",
    ]


def _description(shares: Sequence[float]) -> str:
    half = shares[len(shares) // 2]
    return (
        f"Hypervolume over {len(shares)} evaluations: {half:.1f} % halfway, {shares[-1]:.1f} % "
        "at last."
    )
