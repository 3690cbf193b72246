"""Spaces: their sizes and genes, and what genotypes can do."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest

from bignas_tf.spaces import (
    SPACES,
    Genotype,
    GenotypeError,
    MBConvSpace,
    Stage,
    get_space,
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


# Sizes and genes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("attentivenas", 440_301_256_704),
        ("bignas", 6_266_880_000),
        ("cifar", 6_144),
        ("cifar_small", 1_152),
        ("digits", 6_912),
        ("mobile", 165_888),
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
    allowed = "attentivenas, bignas, cifar, cifar_small, digits, mobile"
    with pytest.raises(ValueError, match=f"`space` must be one of {allowed}. Received: 'imagenet'"):
        get_space("imagenet")


def test_a_stage_refuses_depth_zero_and_kernels_that_cannot_share():
    with pytest.raises(ValueError, match=r"`depths` must be .*positive.* Received: \(0, 1\)"):
        Stage((8,), (0, 1), (3,), (1,), 1)
    with pytest.raises(ValueError, match=r"`kernels` must not mix 1 .* Received: \(1, 3\)"):
        Stage((8,), (1,), (1, 3), (1,), 2)


@pytest.mark.parametrize("kernels", [(2,), (3, 4), (2, 4)])
def test_a_stage_refuses_even_kernels_which_have_no_centre(kernels):
    with pytest.raises(ValueError, match=r"^`kernels` must be odd\. Received: \("):
        Stage((8,), (1,), kernels, (1,), 1)
