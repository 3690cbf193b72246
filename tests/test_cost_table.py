"""The table of a profile: a line per block, and columns beside the counts."""

from networks import cell_network

from bignas_tf.blocks import ConvBlock
from bignas_tf.cost import profile
from bignas_tf.spec import NetworkSpec


def test_the_table_has_one_aligned_line_per_block():
    lines = profile(cell_network()).table().splitlines()
    assert lines == [
        "block   output  MMACs  params  live KiB",
        "input  10x10x3",
        "stem     5x5x8  0.005     232         2",
        "left     5x5x6  0.001      60         2",
        "right    5x5x4  0.002      80         2",
        "cell    5x5x15  0.001      70         3",
        "top          7  0.000     112         2",
        "total           0.010     554         3",
    ]


def test_columns_of_others_stand_beside_the_counts():
    table = profile(cell_network()).table({"ms": {"stem": "1.5", "total": "12"}, "note": {}})
    assert table.splitlines() == [
        "block   output  MMACs  params  live KiB   ms  note",
        "input  10x10x3",
        "stem     5x5x8  0.005     232         2  1.5",
        "left     5x5x6  0.001      60         2",
        "right    5x5x4  0.002      80         2",
        "cell    5x5x15  0.001      70         3",
        "top          7  0.000     112         2",
        "total           0.010     554         3   12",
    ]


def test_live_memory_is_in_units_of_1024_bytes():
    stem = ConvBlock(name="stem", channels=16, kernel_size=1, strides=2, activation="linear")
    table = profile(NetworkSpec((512, 512, 3), (stem,), classes=1)).table()
    # Batch norm reads and writes 256 x 256 x 16 values of 4 bytes; the image is 3 MiB.
    assert table.splitlines()[-1].split() == ["total", "3.146", "80", "8192"]
