"""Names beside points of a plot, where they cover neither each other nor the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from bignas_tf.report.drawing import COLOUR

# Degrees, in the order of preference: a front rises to the right, so above left is free.
_ANGLES = (90, 135, 0, 315, 270, 45, 180, 225)
_DISTANCES = (9, 16, 26, 38)  # points
_MARKER = 3  # pixels, half the width of a marker
_LEADER = 20  # points: from here on a line shows whose name it is


def add_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    obstacles: Sequence[Sequence[tuple[float, float]]],
    taken: Sequence[Annotation],
) -> None:
    """Writes each name where it covers least; call it when limits and scales are final.

    Args:
        axes: where to write.
        labels: x and y of the point, and its name.
        obstacles: lines that names should not cover, each of one or more points (x, y).
        taken: texts that are there already.
    """
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("`axes` must belong to a figure. Received: axes without one")
    ink, halo = COLOUR["ink"], COLOUR["card"]
    renderer = FigureCanvasAgg(figure).get_renderer()
    pixel = figure.dpi / 72
    boxes = [text.get_window_extent(renderer) for text in taken]
    for line in (*obstacles, *([(x, y)] for x, y, _ in labels)):
        boxes += _boxes_along(axes.transData.transform(line).tolist())
    inside = axes.get_window_extent(renderer)
    for x, y, name in labels:
        text = axes.annotate(
            name, (x, y), (0, 0), textcoords="offset points", ha="center", va="center", color=ink
        )
        text.set_fontweight("bold")
        text.set_parse_math(False)
        text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground=halo)])
        size = text.get_window_extent(renderer)
        centre = axes.transData.transform((x, y)).tolist()
        distance, dx, dy, box = _best(centre, size.width, size.height, pixel, boxes, inside)
        text.set_position((dx / pixel, dy / pixel))
        boxes.append(box)
        if distance >= _LEADER:
            shift = (dx / pixel, (dy - math.copysign(size.height / 2, dy)) / pixel)
            axes.annotate(
                "",
                (x, y),
                shift,
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": ink, "linewidth": 0.6},
            )


def _boxes_along(line: Sequence[Sequence[float]]) -> list[Bbox]:
    """Boxes of the size of a marker that cover a line, which is straight in pixels."""
    centres = [line[0]]
    for (x0, y0), (x1, y1) in zip(line, line[1:], strict=False):
        count = math.ceil(math.hypot(x1 - x0, y1 - y0) / (2 * _MARKER)) or 1
        centres += [(x0 + i * (x1 - x0) / count, y0 + i * (y1 - y0) / count) for i in range(count)]
    centres.append(line[-1])
    return [
        Bbox.from_extents(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in centres
    ]


def _best(
    centre: Sequence[float],
    width: float,
    height: float,
    pixel: float,
    boxes: Sequence[Bbox],
    inside: Bbox,
) -> tuple[float, float, float, Bbox]:
    """The nearest place with the least covered area: distance, shift in pixels, box."""
    best: tuple[float, float, float, float, Bbox] | None = None
    for distance in _DISTANCES:
        for angle in _ANGLES:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The edge of the text, not its centre, is `distance` away.
            dx = cos * (distance * pixel + width / 2) if abs(cos) > 0.01 else 0.0
            dy = sin * (distance * pixel + height / 2) if abs(sin) > 0.01 else 0.0
            x, y = centre[0] + dx, centre[1] + dy
            box = Bbox.from_bounds(x - width / 2, y - height / 2, width, height)
            covered = sum(_overlap(box, other) for other in boxes)
            covered += width * height - _overlap(box, inside)
            if best is None or covered < best[0] - 1:
                best = (covered, distance, dx, dy, box)
    if best is None:
        raise AssertionError("there is always a first place")
    return best[1:]


def _overlap(a: Bbox, b: Bbox) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 0.0) * max(height, 0.0)
