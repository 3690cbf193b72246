"""Draws the pictures of docs/method.md.

    python docs/make_pictures.py

The accuracies are read from zoo/results/cifar10_main_20epochs_tensorflow_cpu.csv.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from bignas_tf.report.drawing import COLOUR, plot_style

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "zoo" / "results" / "cifar10_main_20epochs_tensorflow_cpu.csv"


def save(figure: Figure, name: str) -> None:
    """Writes a PNG into docs/."""
    figure.tight_layout()
    figure.savefig(DOCS / f"{name}.png", dpi=130, facecolor="white")


def slicing() -> None:
    """A convolution's kernel as channels by channels, and one of its 5x5 windows."""
    figure = Figure(figsize=(7.4, 3.0))
    channels, window = figure.subplots(1, 2, width_ratios=[1.35, 1])
    for size, colour, name in (
        ((32, 40), "point", "supernet: 32 to 40 channels"),
        ((24, 32), "front", "a child: 24 to 32"),
        ((16, 24), "test", "a smaller one: 16 to 24"),
    ):
        rows, columns = size
        channels.add_patch(
            Rectangle((0, 0), columns, rows, facecolor=COLOUR[colour], alpha=0.35, linewidth=1.2,
                      edgecolor=COLOUR[colour], label=name)
        )  # fmt: skip
    channels.set(xlim=(0, 41), ylim=(33, 0), xlabel="output channels", ylabel="input channels")
    channels.set_title("first channels of a kernel", loc="left")
    channels.legend(loc="lower right", fontsize=7)
    for row in range(5):
        for column in range(5):
            inner = 1 <= row <= 3 and 1 <= column <= 3
            colour = COLOUR["test" if inner else "point"]
            window.add_patch(
                Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.35, edgecolor="white")
            )
    window.set(xlim=(0, 5), ylim=(5, 0), aspect="equal", xticks=[], yticks=[])
    window.set_title("centre of a 5x5 kernel: 3x3", loc="left")
    for axes in (channels, window):
        axes.grid(visible=False)
    save(figure, "method_slicing")


def sandwich() -> None:
    """What teaches whom in one step."""
    figure = Figure(figsize=(7.4, 3.3))
    axes = figure.subplots()
    boxes = {
        "labels": (0.3, 1.6, "labels", "muted"),
        "biggest": (2.6, 1.6, "biggest child\ndropout, L2", "front"),
        "random 1": (6.3, 2.55, "random child", "third"),
        "random 2": (6.3, 1.6, "random child", "third"),
        "smallest": (6.3, 0.65, "smallest child", "test"),
    }

    def arrow(start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, shrinkA=3, shrinkB=3,
                            color=COLOUR["ink"], linewidth=1.1, **style)
        )  # fmt: skip

    for x, y, text, colour in boxes.values():
        axes.add_patch(
            FancyBboxPatch((x - 0.25, y - 0.3), 1.75, 0.6, boxstyle="round,pad=0.06",
                           facecolor=COLOUR[colour], alpha=0.22, edgecolor=COLOUR[colour])
        )  # fmt: skip
        axes.text(x + 0.62, y, text, ha="center", va="center", fontsize=8.5)
    arrow((1.9, 1.6), (2.25, 1.6))
    for y in (2.55, 1.6, 0.65):
        arrow((4.2, 1.6), (5.95, y))
    axes.text(5.3, 2.42, "its soft predictions", ha="right", fontsize=8)
    axes.text(5.3, 0.72, "no gradient back", ha="right", fontsize=8)
    for y in (2.55, 1.6, 0.65):
        arrow((7.9, y), (8.75, 1.62), linestyle=":")
    around = "arc,angleA=-90,angleB=-90,armA=140,armB=140,rad=12"
    arrow((3.2, 1.2), (9.5, 1.2), linestyle=":", connectionstyle=around)
    axes.text(9.5, 1.6, "one update by\nthe sum of all\ngradients", ha="center", va="center",
              fontsize=8.5)  # fmt: skip
    axes.set(xlim=(-0.1, 10.3), ylim=(-0.1, 3.0))
    axes.axis("off")
    save(figure, "method_sandwich")


def calibration() -> None:
    """Top-1 of the zoo's CIFAR-10 children before and after calibration."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["top1_uncalibrated"]]
    rows.sort(key=lambda row: float(row["mmacs"]))
    figure = Figure(figsize=(7.4, 2.9))
    axes = figure.subplots()
    positions = range(len(rows))
    for shift, column, colour, label in (
        (-0.2, "top1_uncalibrated", "point", "the biggest child's statistics"),
        (0.2, "top1", "front", "its own"),
    ):
        values = [100 * float(row[column]) for row in rows]
        bars = axes.bar([p + shift for p in positions], values, 0.38, color=COLOUR[colour],
                        label=label)  # fmt: skip
        axes.bar_label(bars, fmt="%.1f", fontsize=7.5)
    axes.set_xticks(list(positions), [f"{r['child']}\n{float(r['mmacs']):.1f} MMACs" for r in rows])
    axes.set(ylabel="top-1, %", ylim=(0, 100))
    axes.grid(visible=False, axis="x")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8)
    save(figure, "method_calibration")


def main() -> None:
    """Draws all of them."""
    with plot_style():
        slicing()
        sandwich()
        calibration()


if __name__ == "__main__":
    main()
