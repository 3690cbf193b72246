"""Latency from a table of measured blocks: looked up, not measured, and without TensorFlow.

`bignas_tf.deploy.block_latency` measures the tables.
"""

from bignas_tf.latency_table.blocks import SingleBlock, blocks_of, space_blocks
from bignas_tf.latency_table.table import BlockTime, LatencyTable, NetworkTime

__all__ = [
    "BlockTime",
    "LatencyTable",
    "NetworkTime",
    "SingleBlock",
    "blocks_of",
    "space_blocks",
]
