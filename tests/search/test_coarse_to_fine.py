"""The coarse grid, and the fine rounds that vary its best."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from landscapes import OneHeadSpace, noisy, run, tiny_space, uneven

from bignas_tf.search import (
    Budget,
    CoarseToFine,
    RandomSearch,
    measure,
    parse_budgets,
    skeletons,
)
from bignas_tf.search.coarse_to_fine import WELL_USED
from bignas_tf.search.strategy import prefix_order
from bignas_tf.spaces import get_space

# The coarse grid ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"), [("attentivenas", 128), ("bignas", 160), ("cifar", 48), ("digits", 96)]
)
def test_the_coarse_grid_has_as_many_skeletons_as_distinct_settings(name, count):
    space = get_space(name)
    found = skeletons(space)
    assert len(found) == len(set(found)) == count
    assert all(genotype in space for genotype in found)
    assert found[0] == space.smallest()
    assert space.biggest() in found


def test_the_settings_of_the_bignas_grid_are_those_documented():
    # Per stage: depth at 0, 1/3, 2/3, 1 of 1-2, 2-3, 2-3, 2-4, 2-6, 2-6, 1-2.
    depths = {
        (1, 2, 2, 2, 2, 2, 1),
        (1, 2, 2, 3, 3, 3, 1),
        (2, 3, 3, 3, 5, 5, 2),
        (2, 3, 3, 4, 6, 6, 2),
    }
    # Stages 3 to 7 have a choice; of five the first half is two.
    kernels = {
        (3, 3, 3, 3, 3, 3, 3),
        (3, 3, 5, 5, 3, 3, 3),
        (3, 3, 3, 3, 5, 5, 5),
        (3, 3, 5, 5, 5, 5, 5),
    }
    # Stem, stages, head.
    widths = {
        (32, 16, 24, 40, 80, 112, 192, 320, 1280),
        (40, 24, 32, 48, 88, 128, 216, 352, 1408),
    }
    found = {
        (
            genotype["resolution"],
            tuple(genotype[f"stage{i}_depth"] for i in range(1, 8)),
            (
                genotype["stem_width"],
                *(genotype[f"stage{i}_width"] for i in range(1, 8)),
                genotype["head_width"],
            ),
            tuple(genotype[f"stage{i}_kernel"] for i in range(1, 8)),
        )
        for genotype in skeletons(get_space("bignas"))
    }
    assert found == set(itertools.product((192, 224, 256, 288, 320), depths, widths, kernels))


def test_elastic_expansion_follows_the_channels():
    for genotype in skeletons(get_space("attentivenas")):
        widest = genotype["stem_width"] == 24
        expands = [genotype[f"stage{i}_expand"] for i in range(1, 8)]
        assert expands == ([1, 6, 6, 6, 6, 6, 6] if widest else [1, 4, 4, 4, 4, 6, 6])


def test_skeletons_that_are_the_same_network_come_once():
    # 2 resolutions, 4 depths, 2 widths, 2 kernels: one stage has a choice of kernel.
    assert len(skeletons(tiny_space())) == 2 * 4 * 2 * 2
    space = tiny_space(OneHeadSpace)
    found = skeletons(space)
    assert len(found) == 2 * 4 * 2 * 2
    assert {genotype["head_width"] for genotype in found} == {32}


def test_only_skeletons_that_some_budget_allows_are_asked_first():
    space = get_space("cifar")
    budgets = parse_budgets("mmacs:3,6")
    strategy = CoarseToFine(space, budgets)
    feasible = [g for g in skeletons(space) if measure(g, "mmacs") <= 6]
    assert 0 < len(feasible) < 48
    assert strategy.phase == "coarse"
    assert strategy.ask(100) == sorted(feasible, key=prefix_order)


def test_a_budget_in_another_metric_adds_its_own_skeletons():
    space = get_space("cifar")
    small = min(measure(g, "params_m") for g in skeletons(space) if g["resolution"] == 32)
    alone = CoarseToFine(space, [Budget("mmacs", 3)]).ask(100)
    both = CoarseToFine(space, [Budget("mmacs", 3), Budget("params_m", small)]).ask(100)
    assert set(alone) < set(both)
    assert all(measure(g, "mmacs") <= 3 or measure(g, "params_m") <= small for g in both)


# Fine rounds -------------------------------------------------------------------------


def test_fine_rounds_ask_feasible_new_children_and_at_most_as_many_as_set():
    space = get_space("cifar")
    budgets = parse_budgets("mmacs:3,5,8")
    strategy = CoarseToFine(space, budgets, fine_candidates=6, fine_rounds=3)
    asked = {strategy.phase: run(strategy, noisy, batch=100, stop=1)}
    seen = set(asked["coarse"])
    while not strategy.finished:
        phase = strategy.phase
        asked[phase] = run(strategy, noisy, batch=100, stop=1)
        assert seen.isdisjoint(asked[phase])
        assert len(asked[phase]) <= 6 * 3
        assert all(measure(genotype, "mmacs") <= 8 for genotype in asked[phase])
        seen.update(asked[phase])
    assert list(asked) == ["coarse", "fine1", "fine2", "fine3"]


def test_fine_candidates_use_the_budget_well_where_some_do():
    space = get_space("cifar")
    (budget,) = parse_budgets("mmacs:6")
    strategy = CoarseToFine(space, [budget], fine_candidates=4, fine_rounds=1)
    run(strategy, lambda genotype: measure(genotype, "mmacs") / 10, batch=100, stop=1)
    assert budget.cost(strategy.best(budget)) >= WELL_USED * budget.limit
    assert not strategy.finished
    candidates = strategy.ask(100)
    assert len(candidates) == 4
    assert all(6 * WELL_USED <= measure(genotype, "mmacs") <= 6 for genotype in candidates)


def test_fine_candidates_come_as_near_to_the_budget_as_they_can_otherwise():
    space = get_space("bignas")
    (budget,) = parse_budgets("mmacs:1891")
    strategy = CoarseToFine(space, [budget], fine_candidates=8, fine_rounds=1)
    # The smallest child wins: hardly any variation of it uses the budget at all.
    run(strategy, lambda genotype: float(genotype == space.smallest()), batch=200, stop=1)
    assert not strategy.finished
    candidates = strategy.ask(100)
    costs = {genotype: measure(genotype, "mmacs") for genotype in candidates}
    assert len(costs) == 8
    assert max(costs.values()) < WELL_USED * budget.limit
    # Every change of one gene was a candidate: those passed over are no costlier.
    passed = [g for g in space.neighbours(space.smallest()) if g not in costs]
    untried = [measure(g, "mmacs") for g in passed if g not in strategy.told]
    assert len(untried) > 30
    assert min(costs.values()) >= max(untried)


def test_a_candidate_for_two_budgets_takes_one_place():
    strategy = CoarseToFine(get_space("cifar"), parse_budgets("mmacs:6,6.001"), seed=1)
    run(strategy, noisy, batch=100, stop=1)
    assert len(set(strategy.ask(100))) == 2 * 16


def test_children_of_one_resolution_are_asked_in_a_row():
    strategy = CoarseToFine(get_space("cifar"), parse_budgets("mmacs:5,8"), seed=1)
    run(strategy, noisy, batch=100, stop=1)
    sides = [genotype["resolution"] for genotype in strategy.ask(100)]
    assert len(sides) == 32
    assert sides == sorted(sides)
    assert len(set(sides)) > 1


def test_the_best_is_the_cheaper_of_two_as_accurate():
    space = tiny_space()
    strategy = CoarseToFine(space, parse_budgets("mmacs:0.06,0.1,0.2"))
    small, big = space.smallest(), space.smallest().replace(stage1_width=16)
    strategy.tell([big, small], [{"accuracy": 0.5}, {"accuracy": 0.5}])
    assert strategy.best(Budget("mmacs", 1)) == small
    strategy.tell([big], [{"accuracy": 0.6}])
    assert strategy.best(Budget("mmacs", 1)) == big
    assert strategy.best(Budget("mmacs", measure(small, "mmacs"))) == small
    assert strategy.best(Budget("mmacs", 0.001)) is None


@pytest.mark.parametrize("seed", range(4))
def test_coarse_to_fine_comes_near_the_optimum_of_an_enumerable_space(seed):
    space = get_space("digits")
    budgets = parse_budgets("mmacs:0.3,0.6,1.2")
    accuracy = uneven(seed)
    every = list(space.all_genotypes())
    spread = max(map(accuracy, every)) - min(map(accuracy, every))
    strategy = CoarseToFine(space, budgets, seed=seed, fine_rounds=4)
    asked = run(strategy, accuracy)
    assert len(asked) < 300  # of 6,912
    for budget in budgets:
        optimum = max(accuracy(genotype) for genotype in every if budget.allows(genotype))
        regret = optimum - accuracy(strategy.best(budget))
        assert 0 <= regret <= 0.06 * spread


def test_coarse_to_fine_beats_the_random_baseline_at_the_same_number_of_evaluations():
    space = get_space("digits")
    budgets = parse_budgets("mmacs:0.3,0.6,1.2")
    gains = []
    for seed in range(4):
        accuracy = uneven(seed)
        fine = CoarseToFine(space, budgets, seed=seed)
        count = len(run(fine, accuracy))
        baseline = RandomSearch(space, budgets, seed=seed, evaluations=count)
        assert len(run(baseline, accuracy)) == count
        gains += [accuracy(fine.best(b)) - accuracy(baseline.best(b)) for b in budgets]
    assert np.mean(gains) > 0
    assert sum(gain >= 0 for gain in gains) > len(gains) / 2
