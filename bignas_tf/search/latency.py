"""The latency that a search limits: from a table, which may be measured for it first."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

from bignas_tf.checks import require
from bignas_tf.latency_table import LatencyTable, space_blocks
from bignas_tf.latency_table.model import LEAST
from bignas_tf.search.metrics import LATENCY, METRICS, Metric
from bignas_tf.spaces import Space

TABLE = "latency_table.json"
DEVICES = ("host",)
LEAST_KNOWN = 1 / 3  # of the blocks of a space; more predictions than that are no measurement


@contextlib.contextmanager
def latency_from(table: LatencyTable | None) -> Iterator[None]:
    """While it lasts, `latency_ms` is what a table predicts; None changes nothing.

    Args:
        table: whose `profile` tells the milliseconds of a network.
    """
    before = METRICS[LATENCY]
    if table is not None:
        METRICS[LATENCY] = Metric(LATENCY, table.unit, table.profile)
    try:
        yield
    finally:
        METRICS[LATENCY] = before


def measured_table(space: Space, folder: Path, quantization: str, threads: int) -> LatencyTable:
    """The table of a run, of this machine; measured now, or what is missing of it.

    Args:
        space: of the run; all of its blocks at all of its resolutions are measured.
        folder: of the run, which gets `TABLE`.
        quantization: of the files.
        threads: that they run with.

    Raises:
        ValueError: if the table there is of another machine, quantization or number of threads.
    """
    from bignas_tf.deploy.block_latency.host import TablePlan, measure_table

    plan = TablePlan(space, quantization=quantization, threads=threads)
    return measure_table(plan, folder / TABLE)


def check_coverage(table: LatencyTable, space: Space) -> str | None:
    """Requires that a table can tell the latency of every network of a space.

    Returns:
        What to tell people about blocks that are not measured but predicted, None if all are
        measured.

    Raises:
        ValueError: if blocks are missing, and the table is of another space, not of all
            resolutions, has too few of the blocks, or cannot predict.
        ModuleNotFoundError: without scikit-learn, if blocks are to be predicted.
    """
    every = space_blocks(space)
    missing = table.missing(every.values())
    if not missing:
        return None
    _check_origin(table, space)
    known = len(every) - len(missing)
    least = max(LEAST, math.ceil(LEAST_KNOWN * len(every)))
    ok = known >= least and table.model is not None
    allowed = (
        f"a table of the {len(every)} blocks of space '{space.name}', or of at least {least} of "
        "them to predict the others from"
    )
    received = f"{known} of them, without {len(missing)} such as {missing[0].label}"
    require(ok, "latency_table", allowed, received)
    return (
        f"{len(missing)} of {len(every)} blocks of space '{space.name}' are not in the latency "
        f"table, and predicted. It has {table.summary()}"
    )


def _check_origin(table: LatencyTable, space: Space) -> None:
    name = table.header.get("space")
    require(name == space.name, "latency_table", f"of space '{space.name}'", name)
    resolutions = table.header.get("resolutions", [])
    ok = set(space.resolutions) <= set(resolutions)
    allowed = f"of all resolutions of space '{space.name}', {list(space.resolutions)}"
    require(ok, "latency_table", allowed, resolutions)
