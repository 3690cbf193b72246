"""How far a search is, in words: the time left, and whose turn it is."""

from __future__ import annotations

import pytest
from landscapes import noisy, tiny_space
from tqdm import tqdm

from bignas_tf.search import CoarseToFine, Points, Search, measure, parse_budgets
from bignas_tf.search.chief import waiting_for
from bignas_tf.search.progress import SearchBar

SPACE = tiny_space()
BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")
SECONDS = 5000  # for an MMAC


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Watched:
    """A search whose evaluations take as long as their MACs say, and its bar."""

    def __init__(self, folder, fine_rounds, points=()):
        known = Points(SPACE, "table", folder / "points.jsonl")
        for genotype in points:
            known.add(genotype, {"accuracy": noisy(genotype)})
        self.clock = Clock()
        strategy = CoarseToFine(SPACE, BUDGETS, fine_candidates=5, fine_rounds=fine_rounds)
        self.search = Search(known, BUDGETS, strategy=strategy, folder=folder)
        self.bar = SearchBar(self.search.planned, 0, clock=self.clock)
        self.clock.now += 500  # of loading, which says nothing about evaluations

    def evaluate(self, genotype):
        self.clock.now += SECONDS * measure(genotype, "mmacs")
        self.search.points.add(genotype, {"accuracy": noisy(genotype)})
        self.search.show(self.bar)

    def left(self):
        return self.bar.format_dict["left"]


def seconds_for(genotypes):
    return SECONDS * sum(measure(genotype, "mmacs") for genotype in genotypes)


def test_the_time_left_weighs_children_by_their_macs(tmp_path):
    watched = Watched(tmp_path, fine_rounds=0)
    genotypes = watched.search.ask(1000)
    assert watched.left() == "?"
    watched.evaluate(genotypes[0])
    assert watched.left() == "?"  # the first takes longer: its network is traced
    by_number, expected = [], []
    for count, genotype in enumerate(genotypes[1:], 2):
        watched.evaluate(genotype)
        assert watched.left() == tqdm.format_interval(seconds_for(genotypes[count:]) + 1e-6)
        assert f"{count}/{len(genotypes)}" in str(watched.bar)
        by_number.append(seconds_for(genotypes[1:count]) / (count - 1) * (len(genotypes) - count))
        expected.append(seconds_for(genotypes[count:]))
    ratios = [guess / true for guess, true in zip(by_number[:-1], expected[:-1], strict=True)]
    assert min(ratios) < 0.8 or max(ratios) > 1.2  # they are not all alike


def test_rounds_that_nobody_knows_yet_count_as_the_mean_of_what_was_evaluated(tmp_path):
    watched = Watched(tmp_path, fine_rounds=2)
    genotypes = watched.search.ask(1000)
    for genotype in genotypes[:6]:
        watched.evaluate(genotype)
    later = 2 * 5 * len(BUDGETS)
    expected = seconds_for(genotypes[6:]) + later * seconds_for(genotypes[:6]) / 6
    assert watched.left() == tqdm.format_interval(expected + 1e-6)


def test_the_time_left_passes_between_two_results(tmp_path):
    watched = Watched(tmp_path, fine_rounds=0)
    genotypes = watched.search.ask(1000)
    for genotype in genotypes[:2]:
        watched.evaluate(genotype)
    watched.clock.now += 100
    assert watched.left() == tqdm.format_interval(seconds_for(genotypes[2:]) - 100 + 1e-6)
    watched.clock.now += 1e6
    assert watched.left() == "00:00"


def test_results_of_an_earlier_process_take_no_time_in_this_one(tmp_path):
    known = CoarseToFine(SPACE, BUDGETS).ask(5)
    watched = Watched(tmp_path, fine_rounds=0, points=known)
    genotypes = watched.search.ask(1000)
    assert genotypes[:5] == known
    watched.search.show(watched.bar)
    assert watched.left() == "?"
    for genotype in genotypes[5:8]:
        watched.evaluate(genotype)
    assert watched.left() == tqdm.format_interval(seconds_for(genotypes[8:]) + 1e-6)
    assert f"8/{len(genotypes)}" in str(watched.bar)


@pytest.mark.parametrize(
    ("holders", "workers", "words"),
    [
        ({}, set(), "no worker has come yet"),
        ({}, {"a-1"}, "no worker evaluates, of 1 that came"),
        ({"a-1": 2.0}, {"a-1", "b-2"}, "evaluating: a-1 for 00:02"),
        ({"a-1": 2.0, "b-2": 754.0}, {"a-1", "b-2"}, "evaluating: b-2 for 12:34, a-1 for 00:02"),
        (
            {f"w{n}": 100.0 - n for n in range(6)},
            {f"w{n}" for n in range(6)},
            "evaluating: w0 for 01:40, w1 for 01:39, w2 for 01:38, w3 for 01:37, 2 more",
        ),
    ],
)
def test_a_chief_says_whom_it_waits_for_the_longest_first(holders, workers, words):
    assert waiting_for(holders, workers) == words
