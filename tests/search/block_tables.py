"""Latency tables of a device that does not exist."""

from __future__ import annotations

from bignas_tf import cost
from bignas_tf.latency_table import BlockTime, LatencyTable

OVERHEAD = 0.004


def made_up_ms(spec):
    """What a block takes on a device that does not exist: some of each, kernels dearer."""
    kernel = getattr(spec.blocks[0], "kernel_size", 1)
    return 0.01 + cost.count(spec).mmacs * (1 + 0.1 * kernel)


def table_of(singles, networks=(), time=made_up_ms):
    blocks = {b.key: BlockTime(b.label, b.spec, time(b.spec) + OVERHEAD, 0.01) for b in singles}
    header = {
        "space": "tiny",
        "resolutions": [6, 8],
        "quantization": "float32",
        "threads": 1,
        "seed": 0,
    }
    return LatencyTable(header, OVERHEAD, blocks, networks)
