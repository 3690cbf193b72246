"""Children block by block, drawn alike so that they compare side by side."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from bignas_tf.blocks import Block
from bignas_tf.cost import profile
from bignas_tf.report.inputs import Selected

# Units of the SVG, about pixels.
_WIDTH = 240
_LABEL = 62  # where boxes begin
_LONGEST = 116
_ROW = 17
_GAP = 7  # between stages
_THICKNESS = {1: 5, 3: 8, 5: 12, 7: 16}
_ROWS_OF_LABEL = 2  # the stage's name and its resolution


@dataclasses.dataclass(frozen=True)
class _Box:
    """A block as it is drawn: `what` is beside it, `title` is told on hovering."""

    stage: str
    channels: int
    kernel: int
    pixels: str
    what: str
    title: str

    @property
    def thickness(self) -> int:
        return _THICKNESS.get(self.kernel, max(_THICKNESS.values()))


@dataclasses.dataclass(frozen=True)
class ChildPicture:
    """One child's picture.

    Attributes:
        name: of the child.
        caption: its input and cost in words.
        svg: the `<svg>` element; as high as those of the other children, row by row.
    """

    name: str
    caption: str
    svg: Markup


def draw_children(selected: Sequence[Selected]) -> list[ChildPicture]:
    """Draws the chosen children.

    A box is a block: as long as the square root of its channels, as high as its kernel.
    Equal blocks of all children stand in the same row; the outline behind a box is the
    largest that any of the children has there.
    """
    boxes = [_boxes(child) for child in selected]
    rows = _rows(boxes)
    most = max((box.channels for named in boxes for box in named.values()), default=1)
    return [
        ChildPicture(child.name, _caption(child), _draw(child, named, boxes, rows, most))
        for child, named in zip(selected, boxes, strict=True)
    ]


def _caption(child: Selected) -> str:
    return (
        f"{child.resolution} px, {child.mmacs:.4g} MMACs, {1e6 * child.params_m:,.0f} parameters, "
        f"{100 * child.accuracy:.1f} % held-out"
    )


def _boxes(child: Selected) -> dict[str, _Box]:
    """Boxes by the name of their block."""
    counted = profile(child.spec)
    found = {}
    for block in child.spec.blocks:
        shapes = [op.output_shape for op in counted.ops if op.block == block.name]
        # A head ends in a vector; its picture shows what comes before.
        shape = next((shape for shape in reversed(shapes) if len(shape) == 3), (1, 1, *shapes[-1]))
        cost = counted.blocks[block.name]
        channels = getattr(block, "channels", None) or shape[-1]
        found[block.name] = _Box(
            stage=block.name.partition("_block")[0],
            channels=channels,
            kernel=getattr(block, "kernel_size", 1),
            pixels=f"{shape[0]} px" if shape[0] == shape[1] else f"{shape[0]}×{shape[1]} px",
            what=_what(block, channels),
            title=f"{block.name}: {block.type}, {shape[0]}×{shape[1]}×{channels}, "
            f"{cost.mmacs:.3g} MMACs, {cost.params:,} parameters",
        )
    return found


def _what(block: Block, channels: int) -> str:
    """Such as `24 k5 e6`, as in the table of genotypes."""
    kernel, expand = getattr(block, "kernel_size", None), getattr(block, "expand_ratio", None)
    words = [str(channels)]
    words += [f"k{kernel}"] if kernel else []
    words += [f"e{expand:g}"] if expand else []
    return " ".join(words)


def _rows(boxes: Sequence[dict[str, _Box]]) -> dict[str, list[str]]:
    """Names of blocks by stage, those of all children, each stage's in their order."""
    rows: dict[str, list[str]] = {}
    for named in boxes:
        for name, box in named.items():
            names = rows.setdefault(box.stage, [])
            if name not in names:
                names.append(name)
    return rows


def _draw(
    child: Selected,
    named: dict[str, _Box],
    boxes: Sequence[dict[str, _Box]],
    rows: dict[str, list[str]],
    most: int,
) -> Markup:
    parts = []
    top = 0
    for stage, names in rows.items():
        present = [named[name] for name in names if name in named]
        pixels = present[-1].pixels if present else ""
        parts.append(_text("stage", 0, top + 0.5 * _ROW, stage))
        parts.append(_text("pixels", 0, top + 1.5 * _ROW, pixels))
        before = ""
        for row, name in enumerate(names):
            middle = top + (row + 0.5) * _ROW
            others = [each[name] for each in boxes if name in each]
            longest = max(_length(box, most) for box in others)
            parts.append(_rect("ghost", longest, max(b.thickness for b in others), middle))
            if name not in named:
                continue
            box = named[name]
            drawn = _rect("block", _length(box, most), box.thickness, middle)
            parts.append(f"<g>{drawn}<title>{escape(box.title)}</title></g>")
            if box.what != before:
                parts.append(_text("what", _LABEL + longest + 6, middle, box.what))
            before = box.what
        top += max(len(names), _ROWS_OF_LABEL) * _ROW + _GAP
    label = escape(f"{child.name} block by block: {_words(named)}")
    inside = "".join(parts)
    return Markup(  # noqa: S704 - numbers and escaped names
        f'<svg viewBox="0 0 {_WIDTH} {max(top - _GAP, 1)}" role="img" aria-label="{label}">'
        f"{inside}</svg>"
    )


def _words(named: dict[str, _Box]) -> str:
    """Such as `stem 8 k3, stage1 2 × 16 k3 e2`."""
    runs = itertools.groupby(named.values(), key=lambda box: (box.stage, box.what))
    counted = [(stage, what, len(list(run))) for (stage, what), run in runs]
    return ", ".join(f"{stage} {what if n == 1 else f'{n} × {what}'}" for stage, what, n in counted)


def _length(box: _Box, most: int) -> float:
    return _LONGEST * math.sqrt(box.channels / most)


def _rect(kind: str, length: float, thickness: int, middle: float) -> str:
    return (
        f'<rect class="{kind}" x="{_LABEL}" y="{middle - thickness / 2:g}" '
        f'width="{length:.1f}" height="{thickness}" rx="1.5"/>'
    )


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}">{escape(text)}</text>' if text else ""
