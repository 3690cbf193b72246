"""What the page says about each point of a plot of accuracy, over the picture of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup, escape
from matplotlib.axes import Axes

from bignas_tf.report.inputs import Point, Run
from bignas_tf.report.tables import stages

_RADIUS = 4  # units of the picture, about a marker's


@dataclasses.dataclass(frozen=True)
class _Target:
    """A child at its place: `kind` is `selected`, `front` or `other`."""

    kind: str
    cost: float
    accuracy: float
    text: str


def draw_targets(
    axes: Axes, run: Run, front: Sequence[Point], low: float, high: float, cost: str = "mmacs"
) -> Markup:
    """An SVG of invisible circles that covers the plot's picture exactly.

    A circle's title is what a browser shows on hovering; the page's script shows it nicer,
    and lets the arrow keys go along the front.

    Args:
        axes: of the plot, its layout final.
        run: the run.
        front: the points along which the keys go.
        low: accuracy in percent where the plot begins.
        high: accuracy in percent where the plot ends.
        cost: what the plot has on its other axis; points without it have no circle.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("`axes` must belong to a figure. Received: axes without one")
    width, height = figure.get_size_inches() * 72
    circles = []
    for target in _targets(run, front, cost):
        if low <= 100 * target.accuracy <= high:
            place = axes.transData.transform((target.cost, 100 * target.accuracy))
            x, y = (place * 72 / figure.dpi).tolist()
            circles.append(
                f'<circle class="{target.kind}" cx="{x:.1f}" cy="{height - y:.1f}" '
                f'r="{_RADIUS}"><title>{escape(target.text)}</title></circle>'
            )
    inside = "".join(circles)
    return Markup(  # noqa: S704 - numbers and escaped names
        f'<svg class="targets" viewBox="0 0 {width:g} {height:g}" role="group" '
        'aria-label="Evaluated children; the arrow keys go along the front">'
        f"{inside}</svg>"
    )


def _targets(run: Run, front: Sequence[Point], cost: str) -> list[_Target]:
    """Children by ascending cost; the front's and the chosen ones are on top."""
    best = {point.number for point in front}
    found = []
    for point in run.points:
        chosen = run.names_of(point)
        kind = "selected" if chosen else "front" if point.number in best else "other"
        place = point.cost(cost)
        if place is not None:
            found.append(_Target(kind, place, point.accuracy, _text(point, chosen)))
    order = ("other", "front", "selected")
    return sorted(found, key=lambda target: (order.index(target.kind), target.cost))


def _text(point: Point, chosen: Sequence[str]) -> str:
    """A line for the head, then `what: value` line by line."""
    head = f"{point.mmacs:.4g} MMACs, {100 * point.accuracy:.2f} % held-out"
    if chosen:
        head = f"{', '.join(chosen)}: {head}"
    figures = dict(point.figures)
    lines = {}
    if "params_m" in figures:
        lines["parameters"] = f"{1e6 * figures.pop('params_m'):,.0f}"
    lines |= {name: f"{value:.4g}" for name, value in figures.items()}
    lines["evaluation"] = f"{point.number}, {point.phase}" if point.phase else str(point.number)
    lines |= stages(point.genotype)
    return "\n".join([head, *(f"{what}: {value}" for what, value in lines.items())])
