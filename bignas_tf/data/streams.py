"""Random numbers that depend on a key and a position only.

Everything random about data is a function of (seed, epoch, stream, index), so that it is the same
after every resume, on every number of workers and for every trainer. Only the raw output of Philox
is used: NumPy keeps that stable between versions, and promises no such thing for `Generator`.
"""

from __future__ import annotations

import enum
import operator

import numpy as np

from bignas_tf.data.errors import DataError


class Stream(enum.IntEnum):
    """What the numbers are for. A value never changes: runs would no longer resume exactly."""

    TEST_SPLIT = 1
    HOLD_OUT = 2
    ORDER = 3
    SHIFT = 4
    FLIP = 5
    CUTOUT = 6
    MIXUP = 7
    CROP = 8
    OPERATIONS = 9


def raw(stream: Stream, count: int, *, seed: int, epoch: int = 0) -> np.ndarray:
    """Returns `count` uniform uint64 values; the first k are the same for every `count` >= k.

    Args:
        stream: which of the independent streams of (seed, epoch).
        count: int, 0 or more.
        seed: int in [0, 2**64).
        epoch: int in [0, 2**64).

    Raises:
        DataError: if `seed` or `epoch` is out of range.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= operator.index(value) < 2**64:
            raise DataError(f"`{name}` must be an integer in [0, 2**64). Received: {value}")
    # The stream is the counter's highest word: 2**192 blocks lie between two streams.
    bits = np.random.Philox(
        key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64)
    )
    return bits.random_raw(count)


def unit(values: np.ndarray) -> np.ndarray:
    """Maps raw uint64 values to float64 multiples of 2**-53 in [0, 1)."""
    return (values >> np.uint64(11)) * 2.0**-53
