"""Constrained evolution of the best under each budget."""

from __future__ import annotations

import numpy as np
import pytest
from landscapes import noisy, run, tiny_space, uneven

from bignas_tf.search import Budget, Evolution, RandomSearch, measure, parse_budgets
from bignas_tf.spaces import get_space


def distance(a, b):
    return sum(x != y for x, y in zip(a.values, b.values, strict=True))


def test_later_rounds_are_bred_from_the_best_under_the_budget():
    space = get_space("cifar")
    strategy = Evolution(space, [Budget("mmacs", 100)], evaluations=60, population=30, parents=2)
    first = run(strategy, noisy, batch=30, stop=1)
    a, b = sorted(first, key=noisy, reverse=True)[:2]
    elastic = [i for i, gene in enumerate(space.genes) if len(gene.choices) > 1]
    assert distance(a, b) > 4
    crossed, mutated = 0, 0
    second = strategy.ask(30)
    assert len(second) == 30
    for child in second:
        of_both = all(child.values[i] in (a.values[i], b.values[i]) for i in elastic)
        crossed += of_both and 0 < distance(child, a) < distance(a, b)
        mutated += min(distance(child, a), distance(child, b)) <= 4
    assert crossed >= 8  # half of 30, less those that are also near a parent
    assert mutated >= 12
    parents = [min(distance(g, a), distance(g, b)) for g in first if g not in (a, b)]
    children = [min(distance(g, a), distance(g, b)) for g in second]
    assert np.mean(children) < np.mean(parents) - 2


def test_every_budget_gets_its_share_of_every_round():
    strategy = Evolution(get_space("cifar"), parse_budgets("mmacs:3,9"), population=20)
    for _ in range(5):
        asked = strategy.ask(100)
        assert len(asked) == 20
        costs = [measure(genotype, "mmacs") for genotype in asked]
        assert sum(cost <= 3 for cost in costs) >= 10
        assert max(costs) <= 9
        strategy.tell(asked, [{"accuracy": noisy(genotype)} for genotype in asked])
    assert strategy.finished


def test_the_last_round_is_what_is_left_of_the_evaluations():
    strategy = Evolution(get_space("cifar"), parse_budgets("mmacs:6"), evaluations=25)
    assert strategy.planned == 25
    assert len(run(strategy, noisy)) == len(strategy.told) == 25


def test_a_space_that_is_used_up_ends_the_search():
    space = tiny_space()
    strategy = Evolution(space, [Budget("mmacs", 10)], evaluations=400, population=60)
    asked = run(strategy, noisy, batch=100)
    assert len(asked) == len(set(asked)) > 0.9 * space.size()


def test_evolution_beats_random_search_at_the_same_number_of_evaluations():
    space = get_space("digits")
    budgets = parse_budgets("mmacs:0.3,0.6,1.2")
    gains = []
    for seed in range(3):
        accuracy = uneven(seed)
        searches = [cls(space, budgets, seed, evaluations=120) for cls in (Evolution, RandomSearch)]
        assert [len(run(search, accuracy)) for search in searches] == [120, 120]
        evolved, drawn = searches
        gains += [accuracy(evolved.best(b)) - accuracy(drawn.best(b)) for b in budgets]
    assert np.mean(gains) > 0.002  # of a spread of 0.1
    assert sum(gain >= 0 for gain in gains) >= 6


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("evaluations", 2, "`evaluations` must be an integer of at least 3. Received: 2"),
        ("population", 2, "`population` must be an integer of at least 3. Received: 2"),
        ("parents", 0, "`parents` must be an integer of at least 1. Received: 0"),
    ],
)
def test_settings_that_mean_no_evolution_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        Evolution(tiny_space(), parse_budgets("mmacs:0.06,0.1,0.2"), **{field: value})
