"""The operators of a TFLite file, and which of them run outside the delegate."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

from bignas_tf.deploy.interpreter import DELEGATE, delegated_parts

# A swish network in int8 has a part per downsampling; beyond, an activation or the like falls out.
_MANY_PARTS = 8


@dataclasses.dataclass(frozen=True)
class Graph:
    """What a TFLite file is made of, as XNNPACK sees it on this machine.

    Attributes:
        operators: name -> how many.
        delegate_parts: int, parts of the graph that XNNPACK takes.
        outside: name -> how many operators are left to LiteRT's own kernels.
    """

    operators: dict[str, int]
    delegate_parts: int
    outside: dict[str, int]

    def summary(self) -> str:
        """A few words for people."""
        total, outside = sum(self.operators.values()), sum(self.outside.values())
        if not self.delegate_parts:
            return f"{total} operators, XNNPACK takes none"
        parts = "1 part" if self.delegate_parts == 1 else f"{self.delegate_parts} parts"
        text = f"{total} operators, XNNPACK takes {total - outside} in {parts}"
        return f"{text} (not {_listed(self.outside)})" if outside else text

    def warning(self) -> str | None:
        """What the choice of operators and quantization costs, None if it is little."""
        if self.delegate_parts == 0:
            return (
                "XNNPACK takes none of the operators: all run in LiteRT's own kernels, which "
                "are many times slower on a CPU"
            )
        if self.delegate_parts > _MANY_PARTS:
            return (
                f"XNNPACK does not take {_listed(self.outside)}: the graph is cut into "
                f"{self.delegate_parts} delegated parts, and every seam costs time"
            )
        return None


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def read_graph(interpreter: Any) -> Graph:
    """Counts the operators of a file.

    Args:
        interpreter: from `load_interpreter`, with a delegate or without.

    Returns:
        The counts, the most frequent operator first.
    """
    nodes = [node for node in interpreter._get_ops_details() if node["op_name"] != DELEGATE]
    inside = _delegated(interpreter._get_ops_details())
    return Graph(
        operators=_counts(nodes),
        delegate_parts=delegated_parts(interpreter),
        outside=_counts([node for node in nodes if node["index"] not in inside]),
    )


def _counts(nodes: list[dict[str, Any]]) -> dict[str, int]:
    return dict(collections.Counter(node["op_name"] for node in nodes).most_common())


def _delegated(nodes: list[dict[str, Any]]) -> set[int]:
    """Indices of the operators that lie between the inputs and outputs of a delegated part.

    LiteRT keeps the replaced operators in its list and does not mark them.
    """
    makers = {
        int(tensor): node
        for node in nodes
        if node["op_name"] != DELEGATE
        for tensor in node["outputs"]
    }
    inside: set[int] = set()
    for part in nodes:
        if part["op_name"] != DELEGATE:
            continue
        given = {int(tensor) for tensor in part["inputs"]}
        wanted = [int(tensor) for tensor in part["outputs"]]
        while wanted:
            tensor = wanted.pop()
            maker = None if tensor in given else makers.get(tensor)
            if maker is not None and maker["index"] not in inside:
                inside.add(maker["index"])
                wanted += [int(source) for source in maker["inputs"]]
    return inside
