"""The op list of a space: it holds every genotype's ops, and size tables pick them out."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from bignas_tf.ops import Conv, DepthwiseConv, Op, Pool
from bignas_tf.spaces import SPACES, Genotype, MBConvSpace, get_space
from bignas_tf.spaces.sizes import (
    CHANNELS,
    IN_CHANNELS,
    KERNEL_SIZE,
    PRESENT,
    optional_blocks,
    size_table,
)

every_space = pytest.mark.parametrize("name", sorted(SPACES))


@functools.cache
def space_of(name: str) -> MBConvSpace:
    return get_space(name)


@functools.cache
def probes(name: str) -> tuple[Genotype, ...]:
    """1,000 samples, smallest, biggest, and all one-gene changes of those two."""
    space = space_of(name)
    ends = (space.smallest(), space.biggest())
    changed = itertools.chain.from_iterable(map(space.neighbours, ends))
    return (*space.sample(1000, seed=0), *ends, *changed)


@functools.cache
def listed(name: str) -> dict[str, Op]:
    return {op.name: op for op in space_of(name).ops()}


@functools.cache
def entrance(name: str, block: str) -> str:
    """The one tensor from outside that the ops of a block read."""
    members = {op.name: op for op in listed(name).values() if op.block == block}
    (source,) = {i for op in members.values() for i in op.inputs} - set(members)
    return source


def wired(name: str, tensor: str, own: dict[str, Op], blocks: set[str]) -> str:
    """What `tensor` of the list is in a genotype with these ops once absent ones are skipped."""
    ops = listed(name)
    while tensor in ops and tensor not in own:
        block = ops[tensor].block
        tensor = ops[tensor].inputs[0] if block in blocks else entrance(name, block)
    return tensor


@every_space
def test_every_genotypes_ops_are_in_the_list_and_none_is_larger(name):
    ops = listed(name)
    assert len(ops) == len(space_of(name).ops())
    sizes = ("in_channels", "channels", "kernel_size")
    for genotype in probes(name):
        for op in genotype.spec().ops():
            biggest = ops[op.name]
            assert type(op) is type(biggest)
            for field in dataclasses.fields(op):
                value, most = getattr(op, field.name), getattr(biggest, field.name)
                if field.name in sizes:
                    assert value <= most, (genotype, op.name, field.name)
                elif field.name not in ("inputs", "zero_gamma"):
                    assert value == most, (genotype, op.name, field.name)


@every_space
def test_the_list_is_no_larger_than_it_must_be(name):
    space = space_of(name)
    own = {op.name: op for op in space.biggest().spec().ops()}
    for op in space.ops():
        if op.name in own:
            assert op.channels == own[op.name].channels
        else:
            assert op.name in space.optional_ops


@every_space
def test_skipping_absent_ops_turns_the_lists_wiring_into_the_genotypes(name):
    space, ops = space_of(name), listed(name)
    for genotype in probes(name)[900:]:
        own = {op.name: op for op in genotype.spec().ops()}
        blocks = {op.block for op in own.values()}
        for op in own.values():
            inputs = tuple(wired(name, tensor, own, blocks) for tensor in ops[op.name].inputs)
            assert inputs == op.inputs, (genotype, op.name)
        last = space.ops()[-1].name
        assert list(own)[-1] == last
        # The list is in an order in which each genotype's ops can run.
        assert [n for n in ops if n in own] == list(own)


@every_space
def test_the_size_table_holds_the_genotypes_own_sizes(name):
    space = space_of(name)
    for genotype in probes(name)[::10]:
        table = size_table(genotype)
        own = {op.name: op for op in genotype.spec().ops()}
        assert table.dtype == np.int32
        assert table.shape == (len(space.ops()), 4)
        for op, row in zip(space.ops(), table, strict=True):
            assert row[PRESENT] == (op.name in own)
            assert 0 < row[IN_CHANNELS] <= op.in_channels
            assert 0 < row[CHANNELS] <= op.channels
            assert 0 < row[KERNEL_SIZE] <= getattr(op, "kernel_size", 1)
            if op.name in own:
                mine = own[op.name]
                expected = (mine.in_channels, mine.channels, getattr(mine, "kernel_size", 1))
                assert (row[IN_CHANNELS], row[CHANNELS], row[KERNEL_SIZE]) == expected


@every_space
def test_absent_blocks_have_the_sizes_of_the_same_genotype_at_full_depth(name):
    space = space_of(name)
    deepest = {g.name: g.choices[-1] for g in space.genes if g.name.endswith("_depth")}
    for genotype in space.sample(20, seed=8):
        shallow, deep = size_table(genotype), size_table(genotype.replace(**deepest))
        np.testing.assert_array_equal(shallow[:, :PRESENT], deep[:, :PRESENT])
        assert np.all(shallow[:, PRESENT] <= deep[:, PRESENT])


@every_space
def test_optional_blocks_and_ops_are_exactly_those_that_some_genotype_lacks(name):
    space, ops = space_of(name), listed(name)
    lacking_blocks: set[str] = set()
    lacking_ops: set[str] = set()
    for genotype in probes(name):
        own = genotype.spec().ops()
        blocks = {op.block for op in own}
        for absent in set(ops) - {op.name for op in own}:
            if ops[absent].block in blocks:
                lacking_ops.add(absent)
            else:
                lacking_blocks.add(ops[absent].block)
    assert optional_blocks(space) == lacking_blocks
    assert space.optional_ops == lacking_ops


def test_only_transitions_that_can_keep_their_width_have_an_optional_convolution():
    assert space_of("bignas").optional_ops == {"stage2_block1_shortcut_conv"}
    assert space_of("attentivenas").optional_ops == {
        f"stage{number}_block1_shortcut_conv" for number in (1, 2, 3, 7)
    }
    assert space_of("cifar").optional_ops == frozenset()
    assert space_of("digits").optional_ops == {"stage1_block1_shortcut_conv"}


@every_space
def test_only_blocks_that_keep_size_and_width_may_be_absent(name):
    space = space_of(name)
    optional = optional_blocks(space)
    assert not any(block.endswith("block1") for block in optional)
    assert all(block.startswith("stage") for block in optional)
    for genotype in (*space.sample(20, seed=9), space.biggest()):
        ops = {op.name: op for op in genotype.spec().ops()}
        for op in ops.values():
            if op.block not in optional:
                continue
            if isinstance(op, (Conv, DepthwiseConv, Pool)):
                assert op.strides == 1
            if op.name == f"{op.block}_add":
                source = next(i for i in op.inputs if ops[i].block != op.block)
                assert ops[source].channels == op.channels
        present = {op.block for op in ops.values()} & optional
        assert all(f"{block}_add" in ops for block in present)
