"""Spaces: their sizes and genes, what genotypes can do, and the space's op list."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json

import numpy as np
import pytest

from bignas_tf.ops import Conv, DepthwiseConv, Op, Pool
from bignas_tf.spaces import (
    SPACES,
    Genotype,
    GenotypeError,
    MBConvSpace,
    Stage,
    get_space,
)
from bignas_tf.spaces.sizes import (
    CHANNELS,
    IN_CHANNELS,
    KERNEL_SIZE,
    PRESENT,
    optional_blocks,
    size_table,
)

NAMES = sorted(SPACES)
every_space = pytest.mark.parametrize("name", NAMES)

# Table 1 of the BigNAS paper: widths, depths, kernels, expansion, stride.
BIGNAS_TABLE = (
    ((16, 24), (1, 2), (3,), 1, 1),
    ((24, 32), (2, 3), (3,), 6, 2),
    ((40, 48), (2, 3), (3, 5), 6, 2),
    ((80, 88), (2, 3, 4), (3, 5), 6, 2),
    ((112, 120, 128), (2, 3, 4, 5, 6), (3, 5), 6, 1),
    ((192, 200, 208, 216), (2, 3, 4, 5, 6), (3, 5), 6, 2),
    ((320, 328, 336, 344, 352), (1, 2), (3, 5), 6, 1),
)


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


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def chi_square_999(degrees: int) -> float:
    """99.9 % quantile by Wilson and Hilferty's approximation, 3.09 being the normal's."""
    if degrees == 0:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.09 * spread**0.5) ** 3


# Sizes and genes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("attentivenas", 440_301_256_704),
        ("bignas", 6_266_880_000),
        ("cifar", 6_144),
        ("digits", 6_912),
    ],
)
def test_a_space_has_its_published_or_documented_size(name, size):
    assert space_of(name).size() == size


def test_the_size_is_the_number_of_distinct_genotypes():
    space = space_of("digits")
    assert len(set(space.all_genotypes())) == space.size()
    assert all(genotype in space for genotype in space.all_genotypes())


def test_bignas_has_the_genes_of_the_papers_table():
    genes = {gene.name: gene.choices for gene in space_of("bignas").genes}
    assert genes.pop("resolution") == (192, 224, 256, 288, 320)
    assert genes.pop("stem_width") == (32, 40)
    assert genes.pop("head_width") == tuple(range(1280, 1409, 8))
    for number, (widths, depths, kernels, expand, stride) in enumerate(BIGNAS_TABLE, 1):
        assert genes.pop(f"stage{number}_width") == widths
        assert genes.pop(f"stage{number}_depth") == depths
        assert genes.pop(f"stage{number}_kernel") == kernels
        assert genes.pop(f"stage{number}_expand") == (expand,)
        assert space_of("bignas").stages[number - 1].strides == stride
    assert not genes


@every_space
def test_genes_have_ascending_choices_and_names_of_their_own(name):
    genes = space_of(name).genes
    assert len({gene.name for gene in genes}) == len(genes)
    for gene in genes:
        assert gene.choices == tuple(sorted(set(gene.choices))) != ()
        assert gene.name.startswith(gene.group)


@every_space
def test_smallest_and_biggest_have_every_gene_at_its_end(name):
    space = space_of(name)
    smallest, biggest = space.smallest(), space.biggest()
    assert smallest in space
    assert biggest in space
    for gene in space.genes:
        assert smallest[gene.name] == min(gene.choices)
        assert biggest[gene.name] == max(gene.choices)


@every_space
def test_the_network_has_what_the_genes_say(name):
    space = space_of(name)
    for genotype in space.sample(20, seed=5):
        spec = genotype.spec()
        side = genotype["resolution"]
        assert spec.input_shape == (side, side, space.input_channels)
        assert spec.classes == space.classes
        blocks = {block.name: block for block in spec.blocks}
        assert blocks["stem"].channels == genotype["stem_width"]
        for number in range(1, len(space.stages) + 1):
            stage = [b for n, b in blocks.items() if n.startswith(f"stage{number}_")]
            assert len(stage) == genotype[f"stage{number}_depth"]
            for block in stage:
                assert block.channels == genotype[f"stage{number}_width"]
                assert block.kernel_size == genotype[f"stage{number}_kernel"]
                assert block.expand_ratio == genotype[f"stage{number}_expand"]


# Drawing -----------------------------------------------------------------------------


@every_space
def test_sampling_is_reproducible_and_stays_inside(name):
    drawn = space_of(name).sample(50, seed=3)
    assert drawn == get_space(name).sample(50, seed=3)
    assert drawn[:20] == space_of(name).sample(20, seed=3)
    assert drawn != space_of(name).sample(50, seed=4)
    assert all(genotype in space_of(name) for genotype in drawn)


@every_space
def test_every_choice_of_every_gene_is_drawn_equally_often(name):
    space, count = space_of(name), 3000
    vectors = np.array([space.encode(genotype) for genotype in space.sample(count, seed=0)])
    for gene, column in zip(space.genes, vectors.T, strict=True):
        choices = len(gene.choices)
        expected = count / choices
        observed = np.bincount(column, minlength=choices)
        statistic = np.sum((observed - expected) ** 2 / expected)
        assert statistic <= chi_square_999(choices - 1), gene.name


def test_genes_are_drawn_independently():
    space, count = space_of("digits"), 6000
    pairs = [(g["resolution"], g["stage2_depth"]) for g in space.sample(count, seed=1)]
    observed = np.array([pairs.count(p) for p in itertools.product((8, 10, 12), (1, 2, 3))])
    assert np.sum((observed - count / 9) ** 2 / (count / 9)) < 26.12  # 8 degrees, 99.9 %


def test_a_restriction_narrows_only_its_genes():
    space = space_of("bignas")
    assert space.training_restriction == {"resolution": (192, 224, 288, 320)}
    drawn = space.sample(400, seed=0, restrict=space.training_restriction)
    assert {genotype["resolution"] for genotype in drawn} == {192, 224, 288, 320}
    assert {genotype["stage7_width"] for genotype in drawn} == {320, 328, 336, 344, 352}


def test_a_restriction_outside_the_space_is_refused():
    with pytest.raises(GenotypeError, match="`resolution`.*Received: 100"):
        space_of("digits").sample(1, seed=0, restrict={"resolution": (100,)})


@every_space
@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_mutation_changes_at_least_one_gene_and_stays_inside(name, probability):
    space, rng = space_of(name), generator()
    for parent in space.sample(50, seed=0):
        child = space.mutate(parent, rng, probability)
        changed = sum(a != b for a, b in zip(parent.values, child.values, strict=True))
        assert child in space
        assert changed >= 1
        if probability == 0.0:
            assert changed == 1
        if probability == 1.0:
            assert changed == sum(len(gene.choices) > 1 for gene in space.genes)


def test_mutation_changes_genes_as_often_as_asked():
    space, rng = space_of("bignas"), generator()
    parent = space.smallest()
    children = [space.mutate(parent, rng, 0.5) for _ in range(400)]
    elastic = sum(len(gene.choices) > 1 for gene in space.genes)
    changed = [np.sum(space.encode(child) != 0) for child in children]
    assert np.mean(changed) == pytest.approx(elastic / 2, rel=0.05)


@every_space
def test_crossover_takes_every_gene_from_a_parent_and_both_contribute(name):
    space, rng = space_of(name), generator()
    a, b = space.smallest(), space.biggest()
    children = [space.crossover(a, b, rng) for _ in range(50)]
    for child in children:
        assert child in space
        for x, y, value in zip(a.values, b.values, child.values, strict=True):
            assert value in (x, y)
    assert len(set(children)) > 10
    share = np.mean([[v == y for v, y in zip(c.values, b.values, strict=True)] for c in children])
    fixed = np.mean([x == y for x, y in zip(a.values, b.values, strict=True)])
    assert share == pytest.approx(fixed + (1 - fixed) / 2, abs=0.1)


@every_space
def test_neighbours_are_all_that_differ_in_exactly_one_gene(name):
    space = space_of(name)
    for genotype in (space.smallest(), *space.sample(3, seed=2)):
        found = list(space.neighbours(genotype))
        assert len(found) == len(set(found)) == sum(len(g.choices) - 1 for g in space.genes)
        for other in found:
            assert other in space
            assert sum(a != b for a, b in zip(genotype.values, other.values, strict=True)) == 1


# Membership --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [9, 8.0, True, "8", None, -8])
def test_a_value_outside_the_choices_is_refused_by_gene(value):
    space = space_of("digits")
    values = {**space.smallest().as_dict(), "resolution": value}
    message = f"`resolution` of space 'digits' must be one of 8, 10, 12. Received: {value!r}"
    assert space.why_not(values) == message
    with pytest.raises(GenotypeError) as error:
        space.genotype(values)
    assert str(error.value) == message


def test_true_is_no_depth_of_one():
    space = space_of("digits")
    values = {**space.smallest().as_dict(), "stage1_depth": True}
    assert "`stage1_depth`" in str(space.why_not(values))


def test_missing_and_unknown_genes_are_named():
    space = space_of("digits")
    values = space.smallest().as_dict()
    del values["stage2_width"]
    reason = str(space.why_not({**values, "stage9_width": 8}))
    assert "unknown ['stage9_width'], missing ['stage2_width']" in reason


def test_a_wrong_number_of_values_is_refused():
    space = space_of("digits")
    reason = space.why_not(space.smallest().values[:-1])
    assert reason == "A genotype of space 'digits' has 15 values. Received: 14"


def test_numpy_integers_become_plain_ints():
    space = space_of("digits")
    genotype = space.genotype(np.array(space.biggest().values))
    assert genotype == space.biggest()
    assert {type(value) for value in genotype.values} == {int}


def test_replace_checks_what_it_returns():
    smallest = space_of("digits").smallest()
    changed = smallest.replace(stage3_width=56, resolution=12)
    assert (changed["stage3_width"], changed["resolution"]) == (56, 12)
    assert changed.replace(stage3_width=40, resolution=8) == smallest
    with pytest.raises(GenotypeError, match="`stage3_width`.*Received: 57"):
        smallest.replace(stage3_width=57)
    with pytest.raises(GenotypeError, match="unknown \\['width'\\]"):
        smallest.replace(width=8)


@every_space
def test_genotypes_of_separately_created_equal_spaces_are_equal(name):
    one, other = get_space(name), get_space(name)
    assert one is not other
    assert one == other
    assert hash(one.smallest()) == hash(other.smallest())
    assert one.smallest() == other.smallest() in one
    assert {one.biggest(): 1}[other.biggest()] == 1
    assert one.smallest() != one.biggest()


def test_a_genotype_of_another_space_is_neither_equal_nor_contained():
    digits, cifar = space_of("digits"), space_of("cifar")
    three_classes = get_space("digits", classes=3)
    assert three_classes.classes == 3
    assert digits.smallest() not in cifar
    assert digits.smallest() not in three_classes
    assert digits.smallest() != three_classes.smallest()
    assert digits.smallest().values not in digits
    assert Genotype(digits, (9, *digits.smallest().values[1:])) not in digits
    assert digits.smallest() != digits.smallest().values


def test_a_genotype_shows_its_genes():
    genotype = space_of("digits").smallest()
    assert repr(genotype).startswith("Genotype(digits: resolution=8, stem_width=8, stage1_width=8")
    assert list(genotype.as_dict()) == [gene.name for gene in genotype.space.genes]


# Encoding and configuration ----------------------------------------------------------


@every_space
def test_decoding_inverts_encoding(name):
    space = space_of(name)
    for genotype in (space.smallest(), space.biggest(), *space.sample(50, seed=1)):
        vector = space.encode(genotype)
        assert vector.dtype == np.int64
        assert space.decode(vector) == genotype
        assert space.decode(vector.tolist()) == genotype
    assert not space.encode(space.smallest()).any()
    ends = [len(gene.choices) - 1 for gene in space.genes]
    assert space.encode(space.biggest()).tolist() == ends


@pytest.mark.parametrize(
    "vector",
    [
        [0] * 14,
        [0] * 16,
        [[0] * 15],
        [3] + [0] * 14,
        [-1] + [0] * 14,
        [0.0] * 15,
        [False] * 15,
        [],
    ],
)
def test_a_vector_that_encodes_nothing_is_refused(vector):
    with pytest.raises(GenotypeError, match="space 'digits' is 15 integers.*Received: "):
        space_of("digits").decode(vector)


@every_space
def test_a_space_survives_json(name):
    space = space_of(name)
    assert MBConvSpace.from_config(json.loads(json.dumps(space.config()))) == space
    assert MBConvSpace.from_config(space.config()) == space
    changed = dataclasses.replace(space, dropout=0.5)
    assert MBConvSpace.from_config(json.loads(json.dumps(changed.config()))) != space


@every_space
def test_the_summary_of_a_space_is_plain_json_with_every_choice(name):
    space = space_of(name)
    summary = space.to_json()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["name"] == name
    assert summary["classes"] == space.classes
    assert {k: tuple(v) for k, v in summary["genes"].items()} == {
        gene.name: gene.choices for gene in space.genes
    }


def test_an_unknown_space_is_refused_with_the_known_ones():
    allowed = "attentivenas, bignas, cifar, digits"
    with pytest.raises(ValueError, match=f"`space` must be one of {allowed}. Received: 'imagenet'"):
        get_space("imagenet")


def test_a_stage_refuses_depth_zero_and_kernels_that_cannot_share():
    with pytest.raises(ValueError, match=r"`depths` must be at least 1. Received: \(0, 1\)"):
        Stage((8,), (0, 1), (3,), (1,), 1)
    with pytest.raises(ValueError, match=r"`kernels` must not mix 1 .* Received: \(1, 3\)"):
        Stage((8,), (1,), (1, 3), (1,), 2)


# The op list -------------------------------------------------------------------------


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
