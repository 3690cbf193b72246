"""The coarse grid, coarse-to-fine and the random baseline, without files."""

from __future__ import annotations

import functools
import itertools
import json

import numpy as np
import pytest
from landscapes import OneHeadSpace, noisy, tiny_space, uneven

from bignas_tf.search import (
    Budget,
    CoarseToFine,
    RandomSearch,
    measure,
    parse_budgets,
    skeletons,
)
from bignas_tf.search.coarse_to_fine import WELL_USED
from bignas_tf.spaces import SPACES, get_space

TINY_BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")
STRATEGIES = {
    "coarse_to_fine": functools.partial(CoarseToFine, fine_candidates=5, fine_rounds=3),
    "random_search": functools.partial(RandomSearch, evaluations=40),
}
every_strategy = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)


def run(strategy, accuracy, batch=8, stop=None):
    """Asks and tells until the strategy is finished or `stop` batches were told."""
    asked = []
    while not strategy.finished and (stop is None or stop > 0):
        genotypes = strategy.ask(batch)
        assert 0 < len(genotypes) <= batch
        asked += genotypes
        strategy.tell(genotypes, [{"accuracy": accuracy(genotype)} for genotype in genotypes])
        stop = None if stop is None else stop - 1
    return asked


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
    assert strategy.ask(100) == feasible


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
    costs = [measure(genotype, "mmacs") for genotype in strategy.ask(100)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] < WELL_USED * budget.limit
    assert min(costs) > measure(space.smallest(), "mmacs")


def test_the_best_is_the_cheaper_of_two_as_accurate():
    space = tiny_space()
    strategy = CoarseToFine(space, TINY_BUDGETS)
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
    strategy = CoarseToFine(space, budgets, seed=seed)
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


# Both strategies ---------------------------------------------------------------------


@every_strategy
@pytest.mark.parametrize(
    "space", [tiny_space(), tiny_space(OneHeadSpace)], ids=["tiny", "one_head"]
)
def test_no_network_is_asked_twice_and_each_is_under_a_budget(make, space):
    asked = run(make(space, TINY_BUDGETS, seed=1), noisy, batch=7)
    assert len(asked) == len({space.canonical(genotype) for genotype in asked})
    assert all(space.canonical(genotype) == genotype for genotype in asked)
    assert all(any(b.allows(genotype) for b in TINY_BUDGETS) for genotype in asked)


@every_strategy
def test_equal_seeds_ask_the_same_and_others_do_not(make):
    space = get_space("cifar")
    budgets = parse_budgets("mmacs:3,6")
    first = run(make(space, budgets, seed=5), noisy)
    assert run(make(get_space("cifar"), budgets, seed=5), noisy) == first
    assert run(make(space, budgets, seed=6), noisy) != first


@every_strategy
def test_the_size_of_batches_does_not_change_what_is_asked(make):
    first = run(make(tiny_space(), TINY_BUDGETS, seed=2), noisy, batch=1)
    assert run(make(tiny_space(), TINY_BUDGETS, seed=2), noisy, batch=64) == first


@every_strategy
def test_a_strategy_restored_from_json_asks_what_it_would_have(make):
    def new():
        return make(tiny_space(), TINY_BUDGETS, seed=3)

    whole = run(new(), noisy, batch=5)
    for told in range(len(whole) // 5 + 1):
        before = new()
        head = run(before, noisy, batch=5, stop=told)
        after = new()
        after.load_state(json.loads(json.dumps(before.state())))
        assert list(after.told) == head
        assert head + run(after, noisy, batch=5) == whole
        assert after.state() == before.state() or not before.finished


@every_strategy
def test_what_was_asked_but_not_told_is_asked_again_first(make):
    strategy = make(tiny_space(), TINY_BUDGETS, seed=3)
    lost = strategy.ask(4)
    assert set(strategy.ask(4)).isdisjoint(lost)
    after = make(tiny_space(), TINY_BUDGETS, seed=3)
    after.load_state(strategy.state())
    assert after.ask(4) == lost


@every_strategy
def test_a_strategy_waits_for_results_before_it_goes_on(make):
    strategy = make(tiny_space(), TINY_BUDGETS)
    first = strategy.ask(1000)
    assert strategy.ask(1000) == []
    assert not strategy.finished
    strategy.tell(first[1:], [{"accuracy": 0.5}] * (len(first) - 1))
    assert strategy.ask(1000) == []
    strategy.tell(first[:1], [{"accuracy": 0.5}])
    assert strategy.finished == isinstance(strategy, RandomSearch)


@every_strategy
def test_results_that_are_known_are_not_asked_for(make):
    space = tiny_space()
    known = run(make(space, TINY_BUDGETS, seed=4), noisy)[:10]
    strategy = make(space, TINY_BUDGETS, seed=4)
    strategy.tell(known, [{"accuracy": noisy(genotype)} for genotype in known])
    assert list(strategy.told) == known
    assert set(run(strategy, noisy)).isdisjoint(known)


@every_strategy
def test_the_planned_number_bounds_the_evaluations_and_ends_exact(make):
    strategy = make(tiny_space(), TINY_BUDGETS)
    bounds = [strategy.planned]
    while not strategy.finished:
        run(strategy, noisy, batch=4, stop=1)
        bounds.append(strategy.planned)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == len(strategy.told)


@every_strategy
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("seed", {"seed": 9}),
        ("budgets", {"budgets": parse_budgets("mmacs:0.13")}),
        ("space", {"space": get_space("digits")}),
    ],
)
def test_the_state_of_another_search_is_refused(make, key, change):
    budgets = parse_budgets("mmacs:0.13,0.2,0.25")
    given = {"space": tiny_space(), "budgets": budgets, "seed": 0}
    state = make(**given).state()
    with pytest.raises(ValueError, match=f"`state.{key}` must be .* here. Received: "):
        make(**{**given, **change}).load_state(state)


def test_the_state_of_other_settings_or_another_strategy_is_refused():
    state = CoarseToFine(tiny_space(), TINY_BUDGETS, fine_candidates=5).state()
    with pytest.raises(ValueError, match="`state.settings` must be"):
        CoarseToFine(tiny_space(), TINY_BUDGETS, fine_candidates=6).load_state(state)
    with pytest.raises(ValueError, match="`state.strategy` must be 'random_search' here"):
        RandomSearch(tiny_space(), TINY_BUDGETS).load_state(state)


@every_strategy
def test_impossible_arguments_are_refused(make):
    space = tiny_space()
    with pytest.raises(ValueError, match="`budget` must be at least .* of space 'tiny' at 6 px"):
        make(space, [*TINY_BUDGETS, Budget("mmacs", 0.001)])
    with pytest.raises(ValueError, match="`budgets` must be at least one. Received: "):
        make(space, [])
    with pytest.raises(ValueError, match="`seed` must be an integer of at least 0"):
        make(space, TINY_BUDGETS, seed=-1)
    strategy = make(space, TINY_BUDGETS)
    with pytest.raises(ValueError, match="`n` must be an integer of at least 1"):
        strategy.ask(0)
    with pytest.raises(ValueError, match="`genotypes` must be of tiny"):
        strategy.tell([get_space("digits").smallest()], [{"accuracy": 0.5}])
    with pytest.raises(ValueError, match="`metrics` must be 1 in number"):
        strategy.tell([space.smallest()], [])
    with pytest.raises(ValueError, match="`accuracy` must be a number for Genotype"):
        strategy.tell([space.smallest()], [{"accuracy": float("nan")}])


def test_settings_that_mean_no_search_are_refused():
    with pytest.raises(ValueError, match="`fine_candidates` must be an integer of at least 1"):
        CoarseToFine(tiny_space(), TINY_BUDGETS, fine_candidates=0)
    with pytest.raises(ValueError, match="`fine_rounds` must be an integer of at least 0"):
        CoarseToFine(tiny_space(), TINY_BUDGETS, fine_rounds=-1)
    with pytest.raises(ValueError, match="`evaluations` must be an integer of at least 3"):
        RandomSearch(tiny_space(), TINY_BUDGETS, evaluations=2)


# Random search -----------------------------------------------------------------------


def test_random_search_gives_each_budget_its_share():
    space = get_space("cifar")
    budgets = parse_budgets("mmacs:3,9")
    asked = run(RandomSearch(space, budgets, seed=0, evaluations=60), noisy)
    assert len(asked) == 60
    assert sum(measure(genotype, "mmacs") <= 3 for genotype in asked) >= 30
    assert sum(3 < measure(genotype, "mmacs") <= 9 for genotype in asked) >= 25


def test_random_search_without_a_limit_in_reach_draws_uniformly():
    space = get_space("digits")
    asked = run(RandomSearch(space, [Budget("mmacs", 10)], evaluations=600), noisy)
    shares = np.mean([space.encode(genotype) for genotype in asked], axis=0)
    middles = [(len(gene.choices) - 1) / 2 for gene in space.genes]
    np.testing.assert_allclose(shares, middles, atol=0.12)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_random_search_finds_children_even_where_hardly_any_fit(name):
    space = get_space(name)
    smallest = space.smallest()
    tight = Budget("mmacs", measure(smallest, "mmacs") * 1.001)
    asked = run(RandomSearch(space, [tight], evaluations=5), noisy)
    assert smallest in asked
    assert all(tight.allows(genotype) for genotype in asked)


def test_random_search_ends_when_a_space_is_used_up():
    space = tiny_space()
    asked = run(RandomSearch(space, [Budget("mmacs", 10)], evaluations=1000), noisy)
    assert len(asked) <= space.size()
    assert len(asked) > 0.8 * space.size()
