"""Latency as a table of blocks predicts it, against latency as it was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bignas_tf.optional import installing
from bignas_tf.report.drawing import COLOUR, Picture, plot_style, svg
from bignas_tf.report.predictions import Prediction
from bignas_tf.search.latency_agreement import WAYS, agreement, in_words


def draw_latency(predictions: Sequence[Prediction]) -> Picture | None:
    """Draws predicted over measured latency with the diagonal, a panel per way of measuring.

    Args:
        predictions: of children that the table never saw.

    Returns:
        The plot and what it says in words; None where there is nothing to draw.
    """
    if not predictions:
        return None
    notes = [f"{len(predictions)} children that the table of blocks never saw."]
    with plot_style():
        figure = Figure(figsize=(9, 4.3), layout="constrained")
        for number, (way, words) in enumerate(WAYS.items(), start=1):
            axes = figure.add_subplot(1, len(WAYS), number)
            _draw(axes, predictions, way)
            axes.set_title(f"measured {words}".replace("`", ""), loc="left", fontsize=9)
            notes.append(f"Measured {words.replace('`', '')}: {_words(predictions, way)}.")
        if len(predictions[0].measured_ms[way]) == 2:
            notes.append("A bar joins the two measurements of a child.")
        return Picture(svg(figure, "latency", " ".join(["Latency.", *notes])), notes)


def _draw(axes: Axes, predictions: Sequence[Prediction], way: str) -> None:
    guessed = [each.predicted_ms for each in predictions]
    measured = [each.measured_ms[way] for each in predictions]
    every = [*guessed, *(ms for times in measured for ms in times)]
    ends = [min(every), max(every)]
    axes.plot(ends, ends, "-", color=COLOUR["muted"], linewidth=0.8)
    for times, guess in zip(measured, guessed, strict=True):
        axes.plot([min(times), max(times)], [guess, guess], "-", color=COLOUR["point"])
    means = [float(np.mean(times)) for times in measured]
    axes.plot(means, guessed, "o", color=COLOUR["front"], markersize=4)
    axes.set_aspect("equal")
    axes.set_xlabel("measured (ms)")
    axes.set_ylabel("predicted (ms)")


def _words(predictions: Sequence[Prediction], way: str) -> str:
    guessed = [each.predicted_ms for each in predictions]
    sessions = list(zip(*(each.measured_ms[way] for each in predictions), strict=True))
    try:
        return in_words(agreement(guessed, sessions))
    except ModuleNotFoundError:
        return f"how well they agree is not computed without scikit-learn; {installing('search')}"
