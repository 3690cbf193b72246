"""Plots as SVG that stands inside a page and takes the page's colours."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

# Colour in plots -> name of the page's CSS variable, colour on a light and a dark page.
PALETTE = {
    "ink": ("#1f2328", "#e6e8eb"),
    "muted": ("#59636e", "#a3adb8"),
    "grid": ("#e3e6ea", "#31373f"),
    "point": ("#b6bfc9", "#525c67"),
    "front": ("#0b5cad", "#6cb2f5"),
    "test": ("#b3430e", "#f2a16b"),
    "third": ("#2f7d4f", "#6fc28f"),
    "card": ("#ffffff", "#161a1f"),
}
COLOUR = {name: light for name, (light, _) in PALETTE.items()}

_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "text.color": COLOUR["ink"],
    "axes.edgecolor": COLOUR["muted"],
    "axes.labelcolor": COLOUR["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOUR["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOUR["muted"],
    "ytick.color": COLOUR["muted"],
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.dpi": 72,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    # Letters as outlines look the same everywhere and need no font.
    "svg.fonttype": "path",
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot for the page.

    Attributes:
        svg: the `<svg>` element.
        notes: sentences on what the plot shows and what it leaves out.
        targets: an `<svg>` element to lie over it, whose titles tell about its points.
    """

    svg: Markup
    notes: list[str]
    targets: Markup = Markup("")


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Within it figures are drawn in the page's style."""
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # A name in a script that the font lacks; the tables have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as one SVG element.

    Args:
        figure: what to draw.
        name: letters that no other plot of the page has; the ids start with them.
        description: what people hear who do not see the plot.

    Returns:
        The element, the same for the same figure.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<!--.*?-->\n?", "", drawn, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]*)"', drawn)
    if box is None:
        raise ValueError("`figure` must give an SVG with a viewBox. Received: " + drawn[:80])
    label = f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(description)}">'
    drawn = label + drawn[drawn.index(">") + 1 :]
    # HTML knows no namespaces, and ids are the whole page's.
    drawn = drawn.replace("xlink:href=", "href=")
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawn)
    for role, colour in COLOUR.items():
        drawn = drawn.replace(colour, f"var(--{role})")
    return Markup(drawn)  # noqa: S704 - matplotlib's own text; names are outlines in it
