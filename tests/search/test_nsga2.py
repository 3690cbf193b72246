"""NSGA-II against brute force on small tables."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from landscapes import noisy, run, tiny_space, uneven

from bignas_tf.search import (
    NSGA2,
    Budget,
    Objective,
    RandomSearch,
    front,
    hypervolume,
    measure,
    parse_budgets,
    parse_objectives,
    worst_corner,
)
from bignas_tf.search.nsga2 import crowding_distance, ranks_and_crowding
from bignas_tf.spaces import get_space

TWO = parse_objectives("accuracy:max,mmacs:min")
THREE = parse_objectives("accuracy:max,mmacs:min,params_m:min")


def point(genotype, accuracy=noisy):
    costs = {name: measure(genotype, name) for name in ("mmacs", "params_m")}
    return {"genotype": genotype, "accuracy": accuracy(genotype), **costs}


def dominates(a, b, objectives):
    """Whether row `a` is no worse in any objective, and better in one."""
    signs = [1 if each.maximised else -1 for each in objectives]
    gains = [sign * (x - y) for sign, x, y in zip(signs, a, b, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def peeled(values, objectives):
    """Ranks by taking away what nothing dominates, again and again."""
    ranks, left, rank = {}, set(range(len(values))), 0
    while left:
        top = {
            i for i in left if not any(dominates(values[j], values[i], objectives) for j in left)
        }
        ranks |= dict.fromkeys(top, rank)
        left, rank = left - top, rank + 1
    return [ranks[i] for i in range(len(values))]


# Ranks and crowding ------------------------------------------------------------------


@pytest.mark.parametrize("objectives", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("levels", [3, 10_000])  # few levels: many ties
def test_ranks_are_those_of_peeling_front_after_front(objectives, levels):
    rng = np.random.default_rng(levels)
    values = rng.integers(levels, size=(60, len(objectives))).astype(float)
    ranks, distances = ranks_and_crowding(values, objectives)
    assert ranks.tolist() == peeled(values.tolist(), objectives)
    assert max(ranks) > 1
    for rank in set(ranks.tolist()):
        own = values[ranks == rank]
        np.testing.assert_array_equal(distances[ranks == rank], crowding_distance(own))


def test_crowding_is_the_distance_between_the_neighbours_on_either_side():
    rng = np.random.default_rng(0)
    values = rng.random((12, 3))
    expected = []
    for row in values:
        total = 0.0
        for i, x in enumerate(row):
            column = values[:, i]
            below, above = column[column < x], column[column > x]
            if not (len(below) and len(above)):
                total = np.inf
                break
            total += (min(above) - max(below)) / (max(column) - min(column))
        expected.append(total)
    found = crowding_distance(values)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.isfinite(found).any()


def test_crowding_in_an_objective_that_all_share_counts_for_nothing():
    values = np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0], [8.0, 5.0]])
    inner = crowding_distance(values)[np.isfinite(crowding_distance(values))]
    np.testing.assert_allclose(inner[-1], (8 - 1) / 8)
    assert np.isinf(crowding_distance(values[:1])).all()
    assert np.isinf(crowding_distance(values[:2])).all()


# The search --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_the_true_front_of_a_small_table_is_found(seed):
    space = tiny_space()
    accuracy = uneven(seed)
    asked = run(NSGA2(space, seed=seed, evaluations=144), accuracy)
    assert len(set(asked)) == len(asked) == 144 < space.size()
    every = [point(genotype, accuracy) for genotype in space.all_genotypes()]
    expected = front(every)
    assert front(point(genotype, accuracy) for genotype in asked) == expected
    drawn = run(RandomSearch(space, [Budget("mmacs", 1)], seed=seed, evaluations=144), accuracy)
    assert front(point(genotype, accuracy) for genotype in drawn) != expected


@pytest.mark.parametrize("seed", range(3))
def test_under_a_budget_next_to_all_of_its_front_is_found(seed):
    space = tiny_space()
    accuracy = uneven(seed)
    limit = Budget("mmacs", 0.12)
    asked = run(NSGA2(space, [limit], seed=seed, evaluations=62), accuracy)
    assert len(asked) == 62
    assert all(map(limit.allows, asked))
    every = [point(g, accuracy) for g in space.all_genotypes() if limit.allows(g)]
    reference = worst_corner(every, TWO)
    found = hypervolume([point(g, accuracy) for g in asked], TWO, reference)
    assert 0.96 < found / hypervolume(every, TWO, reference) <= 1


def test_three_objectives_end_in_a_front_of_three():
    space = tiny_space()
    accuracy = uneven(0)
    asked = run(NSGA2(space, objectives=THREE, evaluations=120, seed=1), accuracy)
    every = [point(genotype, accuracy) for genotype in space.all_genotypes()]
    reference = worst_corner(every, THREE)
    found = hypervolume([point(g, accuracy) for g in asked], THREE, reference)
    assert found > 0.99 * hypervolume(every, THREE, reference)
    names = [each.name for each in THREE]
    rows = [[p[name] for name in names] for p in every]
    best = [p for p, row in zip(every, rows, strict=True)
            if not any(dominates(other, row, THREE) for other in rows)]  # fmt: skip
    assert sum(p["genotype"] in asked for p in best) > 0.8 * len(best)
    assert len(best) > len(front(every))


def test_nsga2_covers_more_than_random_search_with_half_as_many_evaluations_again():
    space = tiny_space()
    limit = [Budget("mmacs", 1)]
    gains = []
    for seed in range(16):
        accuracy = uneven(seed)
        every = [point(genotype, accuracy) for genotype in space.all_genotypes()]
        volumes = [
            hypervolume(
                [point(g, accuracy) for g in run(strategy, accuracy)],
                TWO, worst_corner(every, TWO),
            )
            for strategy in (
                NSGA2(space, seed=seed, evaluations=40),
                RandomSearch(space, limit, seed=seed, evaluations=60),
            )
        ]  # fmt: skip
        gains.append(volumes[0] / volumes[1] - 1)
    assert np.mean(gains) > 0.01
    assert sum(gain > 0 for gain in gains) >= 12  # a sign test's chance of that: 4 %


def test_the_first_population_is_spread_from_the_smallest_to_the_biggest():
    space = get_space("cifar")
    asked = NSGA2(space, population=20).ask(100)
    assert len(asked) == 20
    assert {space.smallest(), space.biggest()} <= set(asked)
    shares = sorted(space.encode(g).sum() / space.encode(space.biggest()).sum() for g in asked)
    assert max(b - a for a, b in itertools.pairwise(shares)) < 0.25
    limit = Budget("mmacs", 5)
    within = NSGA2(space, [limit], population=20).ask(100)
    assert all(limit.allows(genotype) for genotype in within)
    assert space.smallest() in within
    assert max(map(limit.cost, within)) > 4.5


def test_rounds_are_a_population_then_children_then_what_is_left():
    strategy = NSGA2(get_space("cifar"), evaluations=35, population=12, children=9)
    sizes = []
    while not strategy.finished:
        assert strategy.planned == 35
        asked = strategy.ask(100)
        sizes.append((strategy.phase, len(asked)))
        strategy.tell(asked, [{"accuracy": noisy(genotype)} for genotype in asked])
    assert sizes == [
        ("generation0", 12), ("generation1", 9), ("generation2", 9), ("generation3", 5)
    ]  # fmt: skip
    few = NSGA2(get_space("cifar"), evaluations=5, population=12)
    assert len(run(few, noisy)) == few.planned == 5


def test_without_budgets_a_search_goes_on_from_its_state_too():
    space = tiny_space()
    whole = run(NSGA2(space, seed=3, evaluations=60), noisy, batch=7)
    before = NSGA2(space, seed=3, evaluations=60)
    head = run(before, noisy, batch=7, stop=4)
    after = NSGA2(space, seed=3, evaluations=60)
    after.load_state(before.state())
    assert head + run(after, noisy, batch=7) == whole
    other = NSGA2(space, seed=3, evaluations=60, objectives=THREE)
    with pytest.raises(ValueError, match="`state.settings` must be"):
        other.load_state(before.state())


def test_known_results_above_the_budgets_are_nobodys_parents():
    space = tiny_space()
    limit = Budget("mmacs", measure(space.smallest(), "mmacs"))
    strategy = NSGA2(space, [limit], evaluations=10)
    big = space.biggest()
    strategy.tell([big], [{"accuracy": 0.99}])
    assert set(run(strategy, noisy)) == {g for g in space.all_genotypes() if limit.allows(g)}


def test_a_budget_brings_a_metric_that_is_not_registered():
    space = tiny_space()
    limits = [Budget("ops", 60, profile=lambda spec: len(spec.ops()))]
    strategy = NSGA2(space, limits, evaluations=30)
    assert [each.name for each in strategy.objectives] == ["accuracy", "ops"]
    asked = run(strategy, noisy)
    assert {len(genotype.spec().ops()) <= 60 for genotype in asked} == {True}


def test_a_space_of_one_network_is_searched_in_one_evaluation():
    space = get_space("digits")
    one = space.restricted({gene.name: gene.choices[:1] for gene in space.genes})
    assert run(NSGA2(one), noisy) == [one.smallest()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": 0}, "`evaluations` must be an integer of at least 1. Received: 0"),
        ({"population": 1}, "`population` must be an integer of at least 2. Received: 1"),
        ({"children": 0}, "`children` must be an integer of at least 1. Received: 0"),
        ({"objectives": TWO[:1]}, "`objectives` must be accuracy and other ones, once each"),
        ({"objectives": TWO[1:]}, "`objectives` must be accuracy and other ones, once each"),
        ({"objectives": TWO + TWO}, "`objectives` must be accuracy and other ones, once each"),
        (
            {"objectives": (TWO[0], Objective("flops", "min"))},
            "`objectives` must be one of accuracy, mmacs, params_m.* Received: 'flops'",
        ),
        (
            {
                "budgets": [Budget("ops", 60, profile=lambda spec: len(spec.ops()))],
                "objectives": (TWO[0], Objective("ops", "max")),
            },
            "`direction` must be min for ops. Received: 'max'",
        ),
        ({"budgets": parse_budgets("mmacs:5,6,7"), "evaluations": 2}, "`evaluations` .* least 3"),
    ],
)
def test_settings_that_mean_no_search_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NSGA2(tiny_space(), **settings)


def test_without_moocore_nothing_is_evaluated_before_the_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "moocore", None)
    expected = r"NSGA-II needs moocore; in a checkout of .*: pip install '\.\[search\]'"
    with pytest.raises(ModuleNotFoundError, match=expected):
        NSGA2(tiny_space())
