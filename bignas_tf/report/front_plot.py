"""Accuracy over MACs: what was evaluated, what was chosen, what the test says."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bignas_tf.report.drawing import COLOUR, Picture, plot_style, svg
from bignas_tf.report.held_out import Scale, draw_held_out, fit_scale
from bignas_tf.report.inputs import Run, Tested
from bignas_tf.report.labels import add_labels
from bignas_tf.report.targets import draw_targets

_LOG_FROM = 5  # ratio of the largest to the smallest MMACs


def draw_front(run: Run) -> Picture:
    """Draws the main plot.

    Args:
        run: the run; only the selected children are needed.

    Returns:
        The plot, with notes on what lies off its scale.
    """
    with plot_style():
        figure = Figure(figsize=(9, 5.2), layout="constrained")
        axes = figure.add_subplot()
        scale = _scale(run)
        _draw_selection(axes, run, scale)
        _draw_test(axes, run, scale)
        axes.set_ylim(scale.low, scale.high)
        _label_axes(axes, run)
        taken = _draw_baselines(axes, run, scale)
        figure.legend(loc="outside upper left", ncols=3, fontsize=8.5, handlelength=1.4)
        figure.draw_without_rendering()  # the layout must be final before names are placed
        add_labels(axes, _names(run), _obstacles(axes, run), taken)
        return Picture(
            svg(figure, "front", _description(run)),
            _notes(run, scale),
            draw_targets(axes, run, run.front, scale.low, scale.high),
        )


def _references(run: Run) -> dict[str, Tested]:
    """The biggest and the smallest child, if they have a place on the x axis."""
    found = run.evaluation.references if run.evaluation else {}
    return {name: tested for name, tested in found.items() if tested.mmacs is not None}


def _children(run: Run) -> dict[str, Tested]:
    """Selected children that were tested."""
    found = run.evaluation.children if run.evaluation else {}
    return {child.name: found[child.name] for child in run.selected if child.name in found}


def _scale(run: Run) -> Scale:
    needed = [point.accuracy for point in run.front]
    needed += [child.accuracy for child in run.selected]
    rest = []
    for tested in [*_children(run).values(), *_references(run).values()]:
        needed += [tested.top1, *(tested.interval or ())]
        rest += [tested.uncalibrated] if tested.uncalibrated is not None else []
    if run.evaluation:
        rest += [tested.top1 for tested in run.evaluation.baselines.values()]
    return fit_scale([point.accuracy for point in run.points], needed, rest)


def _draw_selection(axes: Axes, run: Run, scale: Scale) -> None:
    draw_held_out(
        axes,
        [(point.mmacs, point.accuracy) for point in run.points if scale.holds(point.accuracy)],
        [(point.mmacs, point.accuracy) for point in run.front],
        [(child.mmacs, child.accuracy) for child in run.selected],
    )


def _draw_test(axes: Axes, run: Run, scale: Scale) -> None:
    """Markers of test accuracy: the selected children, then biggest and smallest."""
    if run.evaluation is None:
        return
    split, mmacs = run.evaluation.split, {child.name: child.mmacs for child in run.selected}
    children = [(mmacs[name], tested) for name, tested in _children(run).items()]
    references = [(tested.mmacs or 0.0, tested) for tested in _references(run).values()]
    for points, marker, label in (
        (children, "o", f"selected ({split}, recalibrated)"),
        (references, "D", f"biggest and smallest ({split})"),
    ):
        if not points:
            continue
        axes.plot(
            [x for x, _ in points],
            [100 * tested.top1 for _, tested in points],
            marker,
            color=COLOUR["test"],
            markersize=6,
            zorder=3,
            label=label,
        )
        for x, tested in points:
            if tested.interval:
                ends = [100 * end for end in tested.interval]
                axes.plot([x, x], ends, "-", color=COLOUR["test"], linewidth=1.2, zorder=2)
    hollow = [(x, t.uncalibrated) for x, t in children + references if t.uncalibrated is not None]
    hollow = [(x, share) for x, share in hollow if scale.holds(share)]
    if hollow:
        axes.plot(
            [x for x, _ in hollow],
            [100 * share for _, share in hollow],
            "o",
            color=COLOUR["test"],
            markersize=6,
            markerfacecolor="none",
            label=f"without recalibration ({split})",
        )


def _draw_baselines(axes: Axes, run: Run, scale: Scale) -> list[Annotation]:
    texts = []
    for name, tested in (run.evaluation.baselines if run.evaluation else {}).items():
        if not scale.holds(tested.top1):
            continue
        axes.axhline(100 * tested.top1, color=COLOUR["third"], linestyle="--", linewidth=1.2)
        text = axes.annotate(
            f"{name} {100 * tested.top1:.1f} %",
            (1, 100 * tested.top1),
            (0, 5),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            color=COLOUR["third"],
            fontsize=8.5,
            bbox={"facecolor": COLOUR["card"], "edgecolor": "none", "pad": 1},
        )
        text.set_parse_math(False)
        texts.append(text)
    return texts


def _label_axes(axes: Axes, run: Run) -> None:
    axes.set_xlabel("MMACs (millions of multiply-accumulates per image)")
    axes.set_ylabel("accuracy (%)")
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    values = [point.mmacs for point in (*run.points, *run.front)]
    values += [child.mmacs for child in run.selected]
    values += [tested.mmacs or 0.0 for tested in _references(run).values()]
    if not values or min(values) <= 0 or max(values) < _LOG_FROM * min(values):
        axes.set_xlim(left=None if not values or min(values) > 0.3 * max(values) else 0)
        return
    axes.set_xscale("log")
    steps = [step * 10.0**power for power in range(-3, 7) for step in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(min(values) / 1.15, max(values) * 1.15)


def _names(run: Run) -> list[tuple[float, float, str]]:
    """Names at the test accuracy, or at the held-out one of children that were not tested."""
    tested = _children(run)
    names = []
    for child in run.selected:
        share = tested[child.name].top1 if child.name in tested else child.accuracy
        names.append((child.mmacs, 100 * share, child.name))
    for name, reference in _references(run).items():
        names.append((reference.mmacs or 0.0, 100 * reference.top1, name))
    return names


def _obstacles(axes: Axes, run: Run) -> list[list[tuple[float, float]]]:
    """The front, interval bars, markers and baselines, as lines of one or more points."""
    found = [[(child.mmacs, 100 * child.accuracy)] for child in run.selected]
    found.append([(point.mmacs, 100 * point.accuracy) for point in run.front])
    mmacs = {child.name: child.mmacs for child in run.selected}
    bars = [(mmacs[name], tested) for name, tested in _children(run).items()]
    bars += [(tested.mmacs or 0.0, tested) for tested in _references(run).values()]
    for x, tested in bars:
        low, high = tested.interval or (tested.top1, tested.top1)
        found.append([(x, 100 * low), (x, 100 * high)])
        if tested.uncalibrated is not None:
            found.append([(x, 100 * tested.uncalibrated)])
    for baseline in (run.evaluation.baselines if run.evaluation else {}).values():
        found.append([(x, 100 * baseline.top1) for x in axes.get_xlim()])
    return [line for line in found if line]


def _notes(run: Run, scale: Scale) -> list[str]:
    notes = []
    below = sum(not scale.holds(point.accuracy) for point in run.points)
    if below:
        notes.append(f"{below} evaluated children lie below the scale.")
    tested = [*_children(run).values(), *_references(run).values()]
    if any(each.interval for each in tested):
        notes.append("Bars: the interval that was recorded with the accuracy.")
    hidden = [
        100 * each.uncalibrated
        for each in tested
        if each.uncalibrated is not None and not scale.holds(each.uncalibrated)
    ]
    if hidden:
        notes.append(
            "Without recalibrated batch-norm statistics accuracy lies off the scale "
            f"({min(hidden):.1f} to {max(hidden):.1f} %): see the table."
        )
    baselines = run.evaluation.baselines if run.evaluation else {}
    for name, baseline in baselines.items():
        if not scale.holds(baseline.top1):
            notes.append(f"Off the scale: {name}, {100 * baseline.top1:.1f} %.")
    return notes


def _description(run: Run) -> str:
    parts = [f"Accuracy over MMACs of {len(run.points)} evaluated children"]
    parts += [
        f"{child.name} at {child.mmacs:.3g} MMACs: {100 * child.accuracy:.1f} % held-out"
        for child in run.selected
    ]
    return "; ".join(parts) + ". The figures are in the table of children."
