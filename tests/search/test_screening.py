"""The accuracy predictor, and searches that evaluate only what it finds best."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import sys

import numpy as np
import pytest
from landscapes import run, tiny_space, uneven

from bignas_tf.search import (
    NSGA2,
    AccuracyPredictor,
    CoarseToFine,
    Evolution,
    RandomSearch,
    TabularEvaluator,
    parse_budgets,
    select,
)
from bignas_tf.search.predictor import kendall_tau
from bignas_tf.search.results import read_selected
from bignas_tf.search.screening import Screening, least_tau, sentence
from bignas_tf.search.search_options import SearchOptions
from bignas_tf.spaces import get_space

SPACE = get_space("cifar")
BUDGETS = parse_budgets("mmacs:4,6,8")
LONG = {
    "coarse_to_fine": functools.partial(CoarseToFine, fine_candidates=3, fine_rounds=2),
    "evolution": functools.partial(Evolution, evaluations=30, population=15),
}
# One round that is screened.
SHORT = {
    "coarse_to_fine": functools.partial(CoarseToFine, fine_candidates=4, fine_rounds=1),
    "evolution": functools.partial(Evolution, evaluations=24, population=12),
    "random_search": functools.partial(RandomSearch, evaluations=27),
}
every_strategy = pytest.mark.parametrize("make", SHORT.values(), ids=SHORT)


def chance(genotype):
    """An accuracy that has nothing to do with the genes."""
    return float(np.random.Generator(np.random.Philox(list(genotype.values))).random())


def screened(make, times=4, seed=0):
    strategy = make(SPACE, BUDGETS, seed=seed)
    strategy.screen(times)
    return strategy


# The predictor -----------------------------------------------------------------------


def test_tau_is_the_share_of_pairs_in_order_less_that_of_the_others():
    rng = np.random.default_rng(0)
    a, b = rng.permutation(30), rng.permutation(30)
    pairs = list(itertools.combinations(range(30), 2))
    signs = [np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in pairs]
    assert kendall_tau(a, b) == pytest.approx(sum(signs) / len(pairs), abs=1e-12)
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == kendall_tau([1], [1]) == 0


def test_a_smooth_landscape_is_learned_and_its_tau_is_that_of_genotypes_not_seen():
    accuracy = uneven(1)
    seen, unseen = SPACE.sample(60, seed=1), SPACE.sample(40, seed=2)
    seen = list(dict.fromkeys(seen))
    predictor = AccuracyPredictor(SPACE)
    tau = predictor.fit(seen, [accuracy(g) for g in seen])
    found = predictor.predict(unseen)
    assert tau > 0.6
    assert abs(kendall_tau(found, [accuracy(g) for g in unseen]) - tau) < 0.25


def test_on_a_landscape_of_chance_tau_is_about_nought():
    taus = []
    for seed in range(3):
        genotypes = list(dict.fromkeys(SPACE.sample(50, seed=seed)))
        taus.append(AccuracyPredictor(SPACE).fit(genotypes, list(map(chance, genotypes))))
    # Of 50 independent pairs its standard deviation is 0.10.
    assert abs(np.mean(taus)) < 0.2


def test_chance_is_the_spread_of_tau_between_unrelated_orders():
    rng = np.random.default_rng(1)
    for count in (12, 40):
        taus = [kendall_tau(rng.permutation(count), np.arange(count)) for _ in range(400)]
        assert least_tau(count) == pytest.approx(np.std(taus), rel=0.1)


def test_the_order_of_the_results_does_not_change_what_is_predicted():
    genotypes = list(dict.fromkeys(SPACE.sample(20, seed=4)))
    accuracies = [uneven(2)(genotype) for genotype in genotypes]
    first, second = AccuracyPredictor(SPACE, seed=2**40), AccuracyPredictor(SPACE, seed=2**40)
    assert first.fit(genotypes, accuracies) == second.fit(genotypes[::-1], accuracies[::-1])
    assert first.predict(genotypes) == second.predict(genotypes)


def test_impossible_uses_of_the_predictor_are_refused():
    predictor = AccuracyPredictor(SPACE)
    with pytest.raises(RuntimeError, match="has not learned"):
        predictor.predict([SPACE.smallest()])
    with pytest.raises(ValueError, match="`genotypes` must be at least 10. Received: 1"):
        predictor.fit([SPACE.smallest()], [0.5])
    with pytest.raises(ValueError, match="`accuracies` must be 12 in number"):
        predictor.fit(SPACE.sample(12, seed=0), [0.5])
    with pytest.raises(ValueError, match="`seed` must be an integer of at least 0"):
        AccuracyPredictor(SPACE, seed=-1)


# Screened searches -------------------------------------------------------------------


@pytest.mark.parametrize("make", LONG.values(), ids=LONG)
def test_screening_finds_better_children_with_as_many_evaluations(make):
    gains = []
    for seed in (2, 3):
        accuracy = uneven(seed)
        plain, screening = make(SPACE, BUDGETS, seed=seed), screened(make, seed=seed)
        counts = [len(run(strategy, accuracy, batch=100)) for strategy in (plain, screening)]
        assert counts[0] == counts[1]
        gains += [accuracy(screening.best(b)) - accuracy(plain.best(b)) for b in BUDGETS]
        reports = screening.screenings
        assert reports[-1]["screened"]
        assert all(report["candidates"] > report["evaluated"] for report in reports)
    assert np.mean(gains) > 0.001
    assert sum(gain > 0 for gain in gains) > sum(gain < 0 for gain in gains)


@every_strategy
def test_a_landscape_of_chance_does_no_harm(make):
    plain, screening = make(SPACE, BUDGETS, seed=3), screened(make, seed=3)
    asked = run(screening, chance, batch=5)
    assert len(asked) == len(set(asked)) == len(run(plain, chance, batch=5))
    assert all(any(budget.allows(genotype) for budget in BUDGETS) for genotype in asked)
    # Rounds in which the predictor is no better than chance are those of the plain search.
    (report,) = screening.screenings
    assert report["screened"] == (report["tau"] >= least_tau(report["results"]))
    if not report["screened"]:
        assert set(screening.told) == set(plain.told)


@every_strategy
def test_a_screened_search_that_was_stopped_goes_on_as_if_it_had_not(make):
    accuracy = uneven(4)
    whole = screened(make)
    expected = run(whole, accuracy, batch=5)
    # In the middle of the screened round, where predictions wait for their results.
    stop = len(expected) // 5 - 1
    before, after = screened(make), screened(make)
    head = run(before, accuracy, batch=5, stop=stop)
    assert before.screenings and before.screenings[-1]["fresh_tau"] is None
    after.load_state(json.loads(json.dumps(before.state())))
    assert head + run(after, accuracy, batch=5) == expected
    assert after.screenings == whole.screenings
    assert whole.screenings[-1]["fresh_tau"] is not None
    with pytest.raises(ValueError, match="`state.settings` must be"):
        make(SPACE, BUDGETS).load_state(whole.state())


def test_fresh_tau_is_between_predictions_and_the_results_that_followed():
    genotypes = list(dict.fromkeys(SPACE.sample(40, seed=5)))
    accuracy = uneven(5)
    results = {genotype: accuracy(genotype) for genotype in genotypes[:20]}
    rounds = {0: genotypes[20:26], 1: genotypes[24:34], 2: genotypes[34:]}
    screening = Screening(SPACE, BUDGETS[2:], seed=0, times=3)
    kept = screening.choose("second", rounds.__getitem__, results)
    assert len(kept) == 6 and set(kept) <= {g for r in rounds.values() for g in r}
    (report,) = screening.reports
    assert (report["phase"], report["results"], report["candidates"]) == ("second", 20, 20)
    assert report["fresh_tau"] is None
    predictor = AccuracyPredictor(SPACE)
    assert report["tau"] == predictor.fit(list(results), list(results.values()))
    found = predictor.predict(kept)
    allowed = [g for g in genotypes[20:] if BUDGETS[2].allows(g)]
    assert min(found) >= sorted(predictor.predict(allowed))[-6]  # the best six
    screening.settle(results | {genotype: accuracy(genotype) for genotype in kept})
    assert report["fresh_tau"] == kendall_tau(found, [accuracy(g) for g in kept])
    assert sentence(report) == (
        f"second: predictor of 20 results, Kendall tau {report['tau']:.2f} on held-out "
        f"genotypes; 6 of 20 candidates chosen; tau {report['fresh_tau']:.2f} on those"
    )


def test_few_results_and_grids_are_not_screened():
    screening = Screening(SPACE, BUDGETS, seed=0, times=3)
    genotypes = list(dict.fromkeys(SPACE.sample(30, seed=6)))
    few = {genotype: 0.5 for genotype in genotypes[:9]}
    assert screening.choose("few", lambda draw: genotypes[draw : draw + 3], few) == genotypes[:3]
    enough = {genotype: 0.5 for genotype in genotypes[:12]}
    assert screening.choose("grid", lambda draw: genotypes[12:], enough) == genotypes[12:]
    assert screening.reports == []


# What people see ---------------------------------------------------------------------


def test_tau_is_told_as_the_search_goes_and_stands_in_the_folder(tmp_path, capsys):
    space, budgets = tiny_space(), parse_budgets("mmacs:0.06,0.1,0.2")
    strategy = Evolution(space, budgets, evaluations=36, population=12)
    strategy.screen(3)
    evaluator = TabularEvaluator(uneven(0))
    select(space, evaluator, budgets, strategy=strategy, folder=tmp_path, names=["s", "m", "l"])
    shown = capsys.readouterr().err.splitlines()
    with (tmp_path / "screening.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert [row["phase"] for row in rows] == ["generation1", "generation2"]
    for row, report in zip(rows, strategy.screenings, strict=True):
        assert float(row["tau"]) == report["tau"]
        assert float(row["fresh_tau"]) == report["fresh_tau"]
        assert shown.count(sentence(report)) == 1
    best = ", ".join(f"{e['name']} {100 * e['accuracy']:.2f} %" for e in read_selected(tmp_path))
    assert best in shown[-1] and "36/36" in shown[-1]
    assert "\r" not in "".join(shown)  # no terminal: a log


def test_screening_is_an_option_of_the_command():
    options = SearchOptions("mmacs:4", strategy="evolution", screen=4)
    assert options.new_strategy(SPACE).state()["settings"]["screen"] == 4
    assert "screen" not in SearchOptions("mmacs:4").new_strategy(SPACE).state()["settings"]
    with pytest.raises(ValueError, match="`screen` must be an integer of at least 2. Received: 1"):
        SearchOptions("mmacs:4", screen=1)


def test_screening_that_cannot_be_is_refused_before_anything_is_asked(monkeypatch):
    with pytest.raises(ValueError, match="`screen` must be left out for random_search"):
        RandomSearch(SPACE, BUDGETS, evaluations=9).screen(2)
    with pytest.raises(ValueError, match="`budgets` must be at least one, to screen for"):
        Screening(SPACE, [], seed=0, times=2)
    for budgets in (BUDGETS, ()):
        with pytest.raises(ValueError, match="`screen` must be left out for nsga2, which searches"):
            NSGA2(SPACE, budgets).screen(2)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs sklearn; .*: pip install '\.\[search\]'"):
        Evolution(SPACE, BUDGETS).screen(2)
