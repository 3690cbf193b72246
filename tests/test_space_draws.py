"""Samples, mutations, crossovers and neighbours of genotypes."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from bignas_tf.spaces import SPACES, GenotypeError, MBConvSpace, get_space

every_space = pytest.mark.parametrize("name", sorted(SPACES))


@functools.cache
def space_of(name: str) -> MBConvSpace:
    return get_space(name)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def chi_square_999(degrees: int) -> float:
    """99.9 % quantile by Wilson and Hilferty's approximation, 3.09 being the normal's."""
    if degrees == 0:
        return 0.0
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.09 * spread**0.5) ** 3


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


@pytest.mark.parametrize("argument", ["count", "seed"])
def test_a_negative_count_or_seed_is_refused(argument):
    given = {"count": 1, "seed": 0, argument: -1}
    with pytest.raises(ValueError, match=f"`{argument}` must be an integer of at least 0"):
        get_space("digits").sample(**given)
