"""The two plots of the evidence, as PNG."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bignas_tf.report.drawing import COLOUR, plot_style

Row = dict[str, str]
ASIDE = 0.12  # MMACs between markers of the same child, whose bars would hide each other
# Variant's ending -> how it is drawn.
ALONE = {
    "alone": ("trained alone", "s", COLOUR["test"]),
    "teacher": ("alone, external teacher", "D", COLOUR["third"]),
    "jointly": ("jointly with its own teacher", "^", COLOUR["muted"]),
}


def _save(figure: Figure, path: pathlib.Path) -> None:
    figure.savefig(path, dpi=150, facecolor="white", bbox_inches="tight")


def _errors(rows: Sequence[Row]) -> list[list[float]]:
    """Lengths of the error bars in points, below and above."""
    top1, low, high = ([100 * float(r[k]) for r in rows] for k in ("top1", "top1_low", "top1_high"))
    return [
        [a - b for a, b in zip(top1, low, strict=True)],
        [b - a for a, b in zip(top1, high, strict=True)],
    ]


def draw_front(main: Sequence[Row], alone: Sequence[Row], path: pathlib.Path) -> None:
    """Sliced children by cost, and the same children trained in other ways beside them."""
    with plot_style():
        figure = Figure(figsize=(6.4, 4.0))
        axes = figure.subplots()
        _sliced(axes, main)
        for number, (ending, (label, marker, colour)) in enumerate(ALONE.items(), 1):
            some = [row for row in alone if row["variant"].endswith(f"-{ending}")]
            if some:
                axes.errorbar(
                    [float(r["mmacs"]) + number * ASIDE for r in some],
                    [100 * float(r["top1"]) for r in some],
                    yerr=_errors(some), marker=marker, linestyle="none", capsize=2, color=colour,
                    label=label,
                )  # fmt: skip
        axes.set_xlabel("MMACs")
        axes.set_ylabel("top-1 on the test images, %")
        axes.margins(x=0.16, y=0.12)
        axes.legend(loc="lower right")
        _save(figure, path)


def _sliced(axes: Axes, rows: Sequence[Row]) -> None:
    rows = sorted(rows, key=lambda row: float(row["mmacs"]))
    x, y = ([float(r["mmacs"]) for r in rows], [100 * float(r["top1"]) for r in rows])
    label, colour = "sliced from the supernet, not finetuned", COLOUR["front"]
    axes.errorbar(x, y, yerr=_errors(rows), marker="o", capsize=2, label=label, color=colour)
    for a, b, row in zip(x, y, rows, strict=True):
        name = row["child"] if row["child"] in ("biggest", "smallest") else row["child"].upper()
        axes.annotate(name, (a, b), (-5, 5), textcoords="offset points", ha="right", color=colour)


def draw_convergence(rows: Sequence[Row], path: pathlib.Path) -> None:
    """Held-out accuracy of both ends over epochs, with and without the constant ending."""
    with plot_style():
        figure = Figure(figsize=(9.0, 3.8))
        left, right = figure.subplots(1, 2)
        main = _curves(left, [r for r in rows if r["part"] in ("main", "ending")])
        left.set_title(f"space cifar, {_seeds(main)}", loc="left")
        ablations = _curves(right, [r for r in rows if r["part"] == "ablations"])
        right.set_title(f"space cifar_small, {_seeds(ablations)}", loc="left")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_ylabel("top-1 on held-out images, %")
            if axes.get_lines():
                axes.legend(loc="lower right")
        figure.tight_layout()
        _save(figure, path)


def _seeds(seeds: Sequence[str]) -> str:
    return "one seed" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"


def _curves(axes: Axes, rows: Sequence[Row]) -> list[str]:
    """Draws the mean over the seeds that all of the variants have; returns these."""
    variants = dict.fromkeys(row["variant"] for row in rows)
    of_each = [{row["seed"] for row in rows if row["variant"] == name} for name in variants]
    shared = sorted(set.intersection(*of_each)) if of_each else []
    for variant in variants:
        style = "-" if variant == "full" else "--"
        for child, colour in (("biggest", COLOUR["front"]), ("smallest", COLOUR["test"])):
            values: dict[int, list[float]] = {}
            for row in rows:
                if (row["variant"], row["child"]) == (variant, child) and row["seed"] in shared:
                    top1 = 100 * float(row["held_out_top1"])
                    values.setdefault(int(row["epoch"]), []).append(top1)
            if not values:
                continue
            ending = ", without constant ending" if variant == "no_constant_ending" else ""
            epochs = sorted(values)
            means = [statistics.mean(values[epoch]) for epoch in epochs]
            axes.plot(epochs, means, style, color=colour, label=child + ending)
    return shared
