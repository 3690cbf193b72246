"""The latency that a search limits: from a table, which may be measured for it first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bignas_tf.checks import require
from bignas_tf.latency_table import LatencyTable, space_blocks
from bignas_tf.latency_table.model import LEAST
from bignas_tf.search.metrics import LATENCY, METRICS, Metric
from bignas_tf.spaces import Space

TABLE = "latency_table.json"
DEVICES = ("host",)


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
    from bignas_tf.deploy.block_latency import TablePlan, measure_table

    plan = TablePlan(space, quantization=quantization, threads=threads)
    return measure_table(plan, folder / TABLE)


def check_coverage(table: LatencyTable, space: Space) -> str | None:
    """Requires that a table can tell the latency of every network of a space.

    Returns:
        What to tell people about blocks that are not measured but predicted, None if all are
        measured.

    Raises:
        ValueError: if blocks are missing and cannot be predicted.
    """
    every = space_blocks(space)
    missing = table.missing(every.values())
    if not missing:
        return None
    ok = table.model is not None
    allowed = f"a table of the {len(every)} blocks of space '{space.name}', or of {LEAST} and more"
    received = f"{len(table.blocks)} blocks, without {len(missing)} such as {missing[0].label}"
    require(ok, "latency_table", allowed, received)
    return (
        f"{len(missing)} of {len(every)} blocks of space '{space.name}' are not in the latency "
        f"table, and predicted. It has {table.summary()}"
    )
