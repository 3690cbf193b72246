"""Loss, and accuracy where it was evaluated, over the epochs of training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bignas_tf.report.drawing import COLOUR, Picture, plot_style, svg
from bignas_tf.report.inputs import LogLine

_POINTS = 150  # per curve: more would be noise on the page
_LOOKS = {
    "biggest": (COLOUR["front"], "-"),
    "smallest": (COLOUR["test"], "--"),
    "random": (COLOUR["third"], ":"),
}
_OTHER = (COLOUR["muted"], "-.")

Curve = list[tuple[float, float]]


def draw_training(log: Sequence[LogLine]) -> Picture | None:
    """Draws one curve per child role.

    Args:
        log: lines of the training log, in order.

    Returns:
        The plot, or None if the log has neither losses nor accuracies that are finite.
    """
    times = _times(log)
    panels = [
        (label, curves)
        for label, prefix, factor in (("loss", "loss", 1.0), ("accuracy (%)", "accuracy", 100.0))
        if (curves := _curves(log, times, prefix, factor))
    ]
    if not panels:
        return None
    with plot_style():
        figure = Figure(figsize=(9, 3.1), layout="constrained")
        for number, (label, curves) in enumerate(panels, start=1):
            _draw(figure.add_subplot(1, len(panels), number), label, curves)
        return Picture(svg(figure, "training", _description(panels)), _notes(log))


def _times(log: Sequence[LogLine]) -> list[float]:
    """Epochs of the lines; lines of the same whole epoch are spread over it."""
    times: list[float] = []
    for epoch, group in itertools.groupby(line.epoch for line in log):
        count = len(list(group))
        times += [epoch + i / count if epoch.is_integer() else epoch for i in range(count)]
    return times


def _curves(
    log: Sequence[LogLine], times: Sequence[float], prefix: str, factor: float
) -> dict[str, Curve]:
    """Curves by role, none empty; the random children of a step are one role, their mean."""
    curves: dict[str, Curve] = {}
    for line, time in zip(log, times, strict=True):
        values: dict[str, list[float]] = {}
        for name, value in line.scalars.items():
            kind, _, role = name.partition("/")
            if kind == prefix and role:
                values.setdefault(_role(role), []).append(value)
        for role, found in values.items():
            curves.setdefault(role, []).append((time, factor * sum(found) / len(found)))
        if prefix in line.scalars and not values:
            curves.setdefault("all children", []).append((time, line.scalars[prefix]))
    return {role: thinned for role, curve in curves.items() if (thinned := _thinned(curve))}


def _role(name: str) -> str:
    return "random" if name.rstrip("0123456789") == "random" else name


def _thinned(curve: Curve) -> Curve:
    """Means of neighbouring values; what is not finite is left out."""
    finite = [point for point in curve if math.isfinite(point[1])]
    size = math.ceil(len(finite) / _POINTS) or 1
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [(sum(x) / len(x), sum(y) / len(y)) for x, y in (zip(*g, strict=True) for g in groups)]


def _draw(axes: Axes, label: str, curves: dict[str, Curve]) -> None:
    for role, curve in curves.items():
        colour, style = _LOOKS.get(role, _OTHER)
        name = "random (mean)" if role == "random" else role
        marker = "o" if len(curve) == 1 else ""
        axes.plot(*zip(*curve, strict=True), style + marker, color=colour, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for text in axes.legend(fontsize=8.5, handlelength=2.2).get_texts():
        text.set_parse_math(False)


def _notes(log: Sequence[LogLine]) -> list[str]:
    notes = []
    losses = sum(any(name.startswith("loss") for name in line.scalars) for line in log)
    if losses > _POINTS:
        size = math.ceil(losses / _POINTS)
        notes.append(f"Each point of a loss is the mean of {size} logged steps.")
    bad = sum(not all(map(math.isfinite, line.scalars.values())) for line in log)
    if bad:
        notes.append(f"{bad} lines of the log hold numbers that are not finite.")
    speeds = [line.scalars[key] for line in log if (key := "images_per_second") in line.scalars]
    speeds = sorted(filter(math.isfinite, speeds))
    if speeds:
        notes.append(f"Median speed {speeds[len(speeds) // 2]:.0f} images per second.")
    return notes


def _description(panels: Sequence[tuple[str, dict[str, Curve]]]) -> str:
    ends = [
        f"{role}: {label} {curve[0][1]:.3g} at first, {curve[-1][1]:.3g} at last"
        for label, curves in panels
        for role, curve in curves.items()
    ]
    return "Training curves over epochs. " + "; ".join(ends) + "."
