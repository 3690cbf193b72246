"""Curves of hypervolume over evaluations, one per strategy."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bignas_tf.report.drawing import COLOUR, plot_style

STYLES = {
    "random": (COLOUR["muted"], ":"),
    "coarse_to_fine": (COLOUR["test"], "--"),
    "evolution": (COLOUR["third"], "-."),
    "nsga2": (COLOUR["front"], "-"),
}


def draw_curves(
    curves: Mapping[str, Sequence[Sequence[float]]], path: pathlib.Path, x: str, y: str
) -> None:
    """Median and range over the seeds.

    Args:
        curves: by strategy a curve per seed; all of a strategy are as long.
        path: ends in .png or .svg.
        x: label of the numbers of evaluations, from 1.
        y: label of the values.
    """
    with plot_style():
        figure = Figure(figsize=(6.4, 4.0))
        axes = figure.subplots()
        for name, own in curves.items():
            colour, line = STYLES[name]
            columns = list(zip(*own, strict=True))
            numbers = range(1, len(columns) + 1)
            low, high = [min(column) for column in columns], [max(column) for column in columns]
            axes.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
            medians = [statistics.median(column) for column in columns]
            axes.plot(numbers, medians, line, color=colour, label=name.replace("_", " "))
        # The first few evaluations would press the rest together.
        tenth = [[curve[min(9, len(curve) - 1)] for curve in own] for own in curves.values()]
        bottom = min(map(statistics.median, tenth))
        top = max(curve[-1] for own in curves.values() for curve in own)
        if top > bottom:
            margin = 0.05 * (top - bottom)
            axes.set_ylim(bottom - margin, top + margin)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.legend(loc="lower right", title="median, range over seeds")
        figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")
