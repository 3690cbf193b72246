"""What all strategies have in common, and the random baseline."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from landscapes import OneHeadSpace, noisy, run, tiny_space

from bignas_tf.search import (
    NSGA2,
    Budget,
    CoarseToFine,
    Evolution,
    RandomSearch,
    measure,
    parse_budgets,
)
from bignas_tf.spaces import SPACES, get_space

TINY_BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")
STRATEGIES = {
    "coarse_to_fine": functools.partial(CoarseToFine, fine_candidates=5, fine_rounds=3),
    "random_search": functools.partial(RandomSearch, evaluations=40),
    "evolution": functools.partial(Evolution, evaluations=40, population=9, parents=4),
    "nsga2": functools.partial(NSGA2, evaluations=40, population=10, children=7),
}
every_strategy = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)


# All strategies ----------------------------------------------------------------------


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
def test_the_order_in_which_results_are_told_does_not_change_what_is_asked(make):
    first, second = (make(tiny_space(), TINY_BUDGETS, seed=2) for _ in range(2))
    while not first.finished:
        asked = first.ask(100)
        assert second.ask(100) == asked
        metrics = [{"accuracy": noisy(genotype)} for genotype in asked]
        first.tell(asked, metrics)
        second.tell(asked[::-1], metrics[::-1])
    assert second.finished


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
    assert strategy.ask(1) != []


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
def test_looking_at_a_strategy_changes_nothing(make):
    looked, other = (make(tiny_space(), TINY_BUDGETS, seed=5) for _ in range(2))
    while not other.finished:
        for _ in range(2):
            assert (looked.planned, looked.finished) == (other.planned, False)
            assert looked.state() == other.state()
        assert run(looked, noisy, batch=6, stop=1) == run(other, noisy, batch=6, stop=1)
    before = looked.state()
    assert looked.finished and looked.planned == len(looked.told)
    assert looked.state() == before


@every_strategy
def test_a_strategy_that_knows_every_result_is_finished_once_asked(make):
    space = tiny_space()
    strategy = make(space, TINY_BUDGETS)
    known = [space.canonical(genotype) for genotype in space.all_genotypes()]
    strategy.tell(known, [{"accuracy": noisy(genotype)} for genotype in known])
    assert strategy.ask(4) == []
    assert strategy.finished


def test_of_two_as_accurate_the_one_of_lower_loss_is_the_best():
    space = tiny_space()
    small, middle, big = (
        space.smallest(),
        space.smallest().replace(resolution=8),
        space.biggest(),
    )
    budget = Budget("mmacs", 10)

    def best(*losses):
        strategy = RandomSearch(space, TINY_BUDGETS)
        metrics = [{"accuracy": 0.5} | loss for loss in losses]
        strategy.tell([small, middle, big], metrics)
        after = RandomSearch(space, TINY_BUDGETS)
        after.load_state(json.loads(json.dumps(strategy.state(), allow_nan=False)))
        assert after.best(budget) == strategy.best(budget)
        return strategy.best(budget)

    assert best({"loss": 2.0}, {"loss": 1.0}, {"loss": 1.5}) == middle
    assert best({"loss": 1.0}, {"loss": 1.0}, {"loss": 1.5}) == small
    assert best({}, {"loss": float("nan")}, {"loss": 9.0}) == big
    assert best({}, {}, {}) == small
    assert best({"loss": 2.0}, {"loss": 1.0}, {"accuracy": 0.6, "loss": 3.0}) == big


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
    for cls in (CoarseToFine, Evolution, RandomSearch):
        with pytest.raises(ValueError, match="`budgets` must be at least one. Received: "):
            cls(tiny_space(), [])


# Random search -----------------------------------------------------------------------


def test_random_search_gives_each_budget_its_share():
    space = get_space("cifar")
    budgets = parse_budgets("mmacs:3,9")
    asked = run(RandomSearch(space, budgets, seed=0, evaluations=60), noisy)
    assert len(asked) == 60
    assert sum(measure(genotype, "mmacs") <= 3 for genotype in asked) >= 30
    assert sum(3 < measure(genotype, "mmacs") <= 9 for genotype in asked) >= 25


def test_a_part_of_a_random_search_is_like_the_whole():
    space = get_space("cifar")
    asked = run(RandomSearch(space, [Budget("mmacs", 100)], seed=0, evaluations=300), noisy)
    macs = np.array([measure(genotype, "mmacs") for genotype in asked])
    for count in (30, 60, 150):
        error = macs.std() / count**0.5
        assert abs(macs[:count].mean() - macs.mean()) < 3 * error


def test_every_round_of_a_random_search_serves_each_budget_as_often():
    budgets = parse_budgets("mmacs:3,5,9")
    strategy = RandomSearch(get_space("cifar"), budgets, evaluations=20)
    assert [len(strategy.propose(number)) for number in range(3)] == [9, 9, 2]


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
