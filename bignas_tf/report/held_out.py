"""What the plots of accuracy on held-out images share: their scale and their markers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

from bignas_tf.report.drawing import COLOUR

_FAINTEST = 0.02  # share of the evaluated children that may lie below the plot
_REACH = 0.6  # of the heart's height: how far below it something is still drawn
_LEAST = 0.01  # accuracy between the ends of a heart that is a line

Places = Iterable[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Scale:
    """Accuracies, in percent, between which a plot draws."""

    low: float
    high: float

    def holds(self, share: float) -> bool:
        """Whether an accuracy, 0..1, is drawn."""
        return self.low <= 100 * share <= self.high


def fit_scale(
    evaluated: Iterable[float], needed: Iterable[float], rest: Iterable[float] = ()
) -> Scale:
    """Fits the heart of a plot; what lies far below it must not squash it.

    Args:
        evaluated: accuracies, 0..1, of which the lowest 2 % may be left out.
        needed: accuracies that are drawn in any case.
        rest: accuracies that are drawn where they are near the others.
    """
    points = sorted(evaluated)
    heart = [*points[int(_FAINTEST * len(points)) :], *needed]
    low, high = min(heart), max(heart)
    reach = _REACH * max(high - low, _LEAST)
    near = [share for share in rest if low - reach <= share <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.06 * max(high - low, _LEAST)
    return Scale(100 * (low - margin), 100 * min(high + margin, 1.004))


def draw_held_out(axes: Axes, evaluated: Places, front: Places, selected: Places) -> None:
    """Draws the evaluated children, their front, and the chosen ones on top.

    Args:
        axes: to draw in.
        evaluated: cost and accuracy, 0..1, of each.
        front: the same of those that none beats, by ascending cost.
        selected: the same of the chosen ones.
    """
    if columns := _columns(evaluated):
        axes.plot(
            *columns,
            "o",
            color=COLOUR["point"],
            markersize=3,
            markeredgewidth=0,
            label="evaluated children (held-out images)",
        )
    if columns := _columns(front):
        axes.plot(
            *columns, "-", color=COLOUR["front"], linewidth=1.3, label="front (held-out images)"
        )
    if columns := _columns(selected):
        axes.plot(
            *columns,
            "o",
            color=COLOUR["front"],
            markersize=7,
            markerfacecolor=COLOUR["card"],
            markeredgewidth=1.6,
            zorder=3,
            label="selected (held-out images)",
        )


def _columns(places: Places) -> list[Sequence[float]]:
    """Costs and percents; empty for no places."""
    drawn = [(cost, 100 * share) for cost, share in places]
    return [*zip(*drawn, strict=True)]
