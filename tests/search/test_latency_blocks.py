"""The blocks of spaces, alone: which there are, and which are the same."""

from __future__ import annotations

import dataclasses

import pytest
from landscapes import tiny_space

from bignas_tf.blocks import Block, ConvBlock, HeadBlock, MBConvBlock
from bignas_tf.latency_table import blocks_of, space_blocks
from bignas_tf.spaces import get_space
from bignas_tf.spec import NetworkSpec

SPACE = tiny_space()


def test_the_distinct_blocks_of_bignas_are_as_many_as_its_table_of_choices_says():
    # By hand, of the space's table: widths before x widths x kernels for each first block,
    # widths x kernels for the others; the heads are last widths x head widths.
    stages = 2 * 2 + 2, 2 * 2 + 2, (2 * 2 + 2) * 2, (2 * 2 + 2) * 2
    stages += (2 * 3 + 3) * 2, (3 * 4 + 4) * 2, (4 * 5 + 5) * 2
    space = get_space("bignas")
    found = space_blocks(space, [224])
    assert len(found) == 2 + sum(stages) + 5 * 17 == 223
    assert space.size() == pytest.approx(6.27e9, rel=1e-3)
    kinds = [block.spec.blocks[0].type for block in found.values()]
    assert (kinds.count("conv"), kinds.count("head")) == (2, 5 * 17)
    for genotype in space.sample(30, seed=3, restrict={"resolution": (224,)}):
        assert all(block.key in found for block in blocks_of(genotype.spec()).values())


@pytest.mark.parametrize("space", [get_space("cifar"), SPACE])
def test_every_block_of_random_networks_is_among_those_of_the_space(space):
    known = space_blocks(space)
    for genotype in [space.smallest(), space.biggest(), *space.sample(60, seed=3)]:
        assert all(block.key in known for block in blocks_of(genotype.spec()).values())


def test_the_blocks_of_some_resolutions_are_those_of_their_networks_alone():
    known = space_blocks(SPACE, [6])
    sample = SPACE.sample(40, seed=0)
    by_resolution = {6: set(), 8: set()}
    for genotype in sample:
        keys = {block.key for block in blocks_of(genotype.spec()).values()}
        by_resolution[genotype["resolution"]] |= keys
    assert by_resolution[6] <= set(known)
    assert set(known) | set(space_blocks(SPACE, [8])) == set(space_blocks(SPACE))
    for resolutions in ([], [7], [6, 7]):
        with pytest.raises(ValueError, match=r"`resolutions` must be among \(6, 8\). Received"):
            space_blocks(SPACE, resolutions)


def key(block, shape=(8, 8, 16), classes=10, after=()):
    return blocks_of(NetworkSpec(shape, (*after, block), classes))[block.name].key


def test_blocks_that_take_the_same_time_have_one_key():
    block = MBConvBlock(name="a", channels=16, expand_ratio=2)
    same = [
        dataclasses.replace(block, name="b"),
        dataclasses.replace(block, shortcut="projection"),  # an identity here
        dataclasses.replace(block, expand_ratio=None, expanded_channels=32),
    ]
    assert {key(other) for other in same} == {key(block)}
    assert key(block, classes=5) == key(block)
    head = HeadBlock(name="head", channels=8)
    assert key(head) == key(dataclasses.replace(head, dropout=0.5))


def test_blocks_that_need_not_take_the_same_time_have_different_keys():
    block = MBConvBlock(name="a", channels=16, expand_ratio=2)
    others = [
        dataclasses.replace(block, **change)
        for change in (
            {"channels": 24}, {"kernel_size": 5}, {"strides": 2}, {"expand_ratio": 3},
            {"activation": "relu"}, {"shortcut": "none"}, {"shortcut": "projection_always"},
        )
    ]  # fmt: skip
    head = HeadBlock(name="head", channels=8)
    keys = [*map(key, [block, *others, head]), key(block, (8, 9, 16)), key(block, (8, 8, 24))]
    keys += [key(head, classes=5), key(dataclasses.replace(head, channels=None))]
    assert len(set(keys)) == len(keys)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SumBlock(Block):
    """The sum of two blocks."""

    type = "sum"
    arity = 2

    def ops(self, writer, *inputs):
        return writer.add("add", *inputs)


def test_a_block_reads_whichever_block_it_names_but_no_two():
    stem = ConvBlock(name="stem", channels=8)
    side = ConvBlock(name="side", channels=16, strides=2)
    last = ConvBlock(name="last", channels=8, inputs=("stem",))
    found = blocks_of(NetworkSpec((8, 8, 3), (stem, side, last), 10))
    assert found["last"].spec.input_shape == (8, 8, 8)
    blocks = (stem, last, SumBlock(name="sum", inputs=("stem", "last")))
    with pytest.raises(ValueError, match="`spec` must be a network whose blocks have one input"):
        blocks_of(NetworkSpec((8, 8, 3), blocks, 10))


def test_a_label_says_what_a_block_is():
    block = ConvBlock(name="stem", channels=8, strides=2)
    (single,) = blocks_of(NetworkSpec((9, 8, 3), (block,), 10)).values()
    assert single.label == "conv 9x8x3 to 5x4x8, kernel 3, stride 2"
