"""What it costs that two workers share a search, counted in MACs."""

from __future__ import annotations

import itertools

import pytest
from landscapes import uneven

from bignas_tf import cost
from bignas_tf.search import CoarseToFine, parse_budgets
from bignas_tf.search.oracle import SHARE
from bignas_tf.spaces import get_space


def computed(genotypes):
    """MACs of children one after the other, each from where it departs from the one before."""
    total, before = 0, []
    for genotype in genotypes:
        spec = genotype.spec()
        macs = {op.name: op.macs for op in cost.profile(spec).ops}
        groups = itertools.groupby(spec.ops(), key=lambda op: op.block)
        blocks = [(spec.input_shape, tuple(ops)) for _, ops in groups]
        alike = itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(before, blocks, strict=False)
        )
        own = blocks[len(list(alike)) :]
        total += sum(macs[op.name] for _, ops in own for op in ops)
        before = blocks
    return total


def test_workers_that_share_in_rows_compute_less_twice_than_those_that_take_turns():
    # The figures of docs/searching.md.
    strategy = CoarseToFine(get_space("cifar"), parse_budgets("mmacs:4,6,8,12"), seed=0)
    accuracy, alone, rows, turns = uneven(0), 0, 0, 0
    while not strategy.finished:
        genotypes = strategy.ask(10_000)
        alone += computed(genotypes)
        for worker in range(2):
            rows += computed([g for i, g in enumerate(genotypes) if i // SHARE % 2 == worker])
            turns += computed(genotypes[worker::2])
        strategy.tell(genotypes, [{"accuracy": accuracy(genotype)} for genotype in genotypes])
    assert rows / alone == pytest.approx(1.05, abs=0.02)
    assert turns / alone == pytest.approx(1.20, abs=0.03)
