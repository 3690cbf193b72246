"""Evaluating children one after the other, each from where it departs from the one before.

Calibration is sequential: what the first blocks of a network compute, and their batch-norm
statistics, do not depend on the blocks after them. Children that begin alike, at one
resolution, share both; the result is bit for bit that of evaluating each alone. A search asks
for children that begin alike in a row (`bignas_tf.search.strategy.prefix_order`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops as K

from bignas_tf.calibration import Gather, SequentialCalibration
from bignas_tf.ops import INPUT, Op, last_uses
from bignas_tf.spec import NetworkSpec
from bignas_tf.stretch import stretch
from bignas_tf.weights import slice_weights

Chunks = list[dict[str, Any]]  # live tensors by name, of every chunk of images


@dataclasses.dataclass
class _State:
    """What is known after some blocks of a network.

    Attributes:
        ops: of the last of these blocks.
        calibration: what the blocks to come read, of the calibration images.
        validation: the same of the validation images.
    """

    ops: tuple[Op, ...]
    calibration: Chunks
    validation: Chunks

    def megabytes(self, counts: Sequence[float]) -> float:
        """Memory of the tensors, of so many calibration and validation images."""
        splits = zip((self.calibration, self.validation), counts, strict=True)
        sizes = (
            4 * count * np.prod(tensor.shape[1:])
            for chunks, count in splits
            for tensor in chunks[0].values()
        )
        return float(sum(sizes)) / 1e6


class SharedPrefixes:
    """The states of the last child, block by block, and the children that go on from them.

    Args:
        weights: of the supernet, by `op/weight`.
        memory_limit_mb: of all states that are kept; those of the first blocks go first.
        counts: of calibration and validation images; of several workers the most that one has,
            so that all of them keep the same states.
        gather: of workers that have calibration images of their own; None for a single one.
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        memory_limit_mb: float,
        counts: Sequence[float],
        gather: Gather | None = None,
    ):
        self._weights = weights
        self._counts = counts
        self._gather = gather
        self._memory_limit_mb = memory_limit_mb
        self._shape: tuple[int, ...] = ()
        self._states: list[_State] = []

    def logits(
        self, spec: NetworkSpec, calibration: Sequence[Any], validation: Sequence[Any]
    ) -> np.ndarray:
        """Logits of a child on the validation images, after its calibration.

        Args:
            spec: the child, whose weights are slices of the supernet's.
            calibration: chunks of images at its resolution, the same in every call at it.
            validation: the same.

        Returns:
            `(validation images, classes)`.
        """
        ops = spec.ops()
        groups = [tuple(group) for _, group in itertools.groupby(ops, key=lambda op: op.block)]
        if spec.input_shape != self._shape:
            self._shape, self._states = spec.input_shape, []
        ends = list(itertools.accumulate(map(len, groups)))
        last = last_uses(ops)
        needed = [
            {name for name in (INPUT, *(op.name for op in ops[:end])) if last[name] >= end}
            for end in ends
        ]
        shared = self._shared(groups, needed)
        del self._states[shared:]
        if self._states:
            state = self._states[-1]
        else:
            chunks = ([{INPUT: images} for images in split] for split in (calibration, validation))
            state = _State((), *chunks)
        kept_mb = sum(kept.megabytes(self._counts) for kept in self._states)
        for number in range(shared, len(groups)):
            state = self._advance(state, groups[number], needed[number])
            kept_mb += state.megabytes(self._counts)
            if len(self._states) == number and kept_mb <= self._memory_limit_mb:
                self._states.append(state)
        name = ops[-1].name
        return np.concatenate([K.convert_to_numpy(chunk[name]) for chunk in state.validation])

    def _shared(self, groups: Sequence[tuple[Op, ...]], needed: Sequence[set[str]]) -> int:
        """How many states are those of the child of these blocks."""
        for number, (state, group) in enumerate(zip(self._states, groups, strict=False)):
            if state.ops != group or not needed[number] <= state.calibration[0].keys():
                return number
        return min(len(self._states), len(groups))

    def _advance(self, state: _State, group: tuple[Op, ...], needed: set[str]) -> _State:
        """Calibrates one more block and runs all images through it."""
        network = SequentialCalibration(slice_weights(self._weights, group), self._gather)
        calibration = network.walk(group, state.calibration, needed)
        run = stretch(group, network.weights, needed)
        return _State(group, calibration, [run(chunk) for chunk in state.validation])
