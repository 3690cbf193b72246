"""The benchmarks of strategies: on NAS-Bench-Macro's space and on the children of a run."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from absl import flags
from landscapes import noisy, tiny_space, uneven

from bignas_tf.cost import count
from bignas_tf.search import (
    CachedEvaluator,
    CoarseToFine,
    RandomSearch,
    TabularEvaluator,
    front,
    measure,
)


@pytest.fixture
def tabular(benchmark):
    return benchmark("search_tabular")


@pytest.fixture
def strategies(benchmark):
    return benchmark("search_strategies")


# NAS-Bench-Macro ---------------------------------------------------------------------


def test_the_space_has_as_many_networks_as_published(tabular):
    space = tabular.MacroSpace()
    assert space.size() == 6561
    networks = {space.canonical(genotype) for genotype in space.all_genotypes()}
    assert len(networks) == 3969
    assert all(space.canonical(genotype) == genotype for genotype in networks)


@pytest.mark.parametrize(
    ("coding", "macs", "params"),
    [  # as the benchmark's file has them
        ("00000000", 7713280, 387882),
        ("02012100", 47327744, 890666),
        ("11111221", 65012224, 2181386),
        ("00011110", 31390208, 1118378),
    ],
)
def test_networks_cost_what_the_benchmark_says(tabular, coding, macs, params):
    space = tabular.MacroSpace()
    genotype = space.genotype([int(digit) for digit in coding])
    for same in (genotype, space.canonical(genotype)):
        counted = count(same.spec())
        assert (counted.macs, counted.params) == (macs, params)
    assert space.canonical(space.genotype([0, 0, 0, 0, 2, 0, 0, 1])).values == (
        (0, 0, 0, 2, 0, 0, 1, 0)
    )  # fmt: skip


class Small:
    """Three layers, so that a table of all codings is quick to make."""

    def __init__(self, tabular, monkeypatch, path):
        monkeypatch.setattr(tabular, "STAGES", (1, 3))
        monkeypatch.setattr(tabular, "CODINGS", 81)
        self.space = tabular.MacroSpace(name="small")
        self.path = path
        self.data = {}
        for genotype in self.space.all_genotypes():
            network = self.space.canonical(genotype)
            counted = count(network.spec())
            self.data["".join(map(str, genotype.values))] = {
                "mean_acc": 100 * noisy(network), "flops": counted.macs, "params": counted.params
            }  # fmt: skip
        self.write()

    def write(self):
        self.path.write_text(json.dumps(self.data))


@pytest.fixture
def small(tabular, monkeypatch, tmp_path):
    return Small(tabular, monkeypatch, tmp_path / "table.json")


def test_a_table_has_every_network_once(tabular, small):
    table = tabular.read_table(str(small.path), small.space)
    assert len(table) == 3 * 21
    coding = "1020"
    network = small.space.canonical(small.space.genotype([1, 0, 2, 0]))
    assert table[network] == small.data[coding]["mean_acc"] / 100
    assert small.data["1002"]["mean_acc"] == small.data[coding]["mean_acc"]


@pytest.mark.parametrize(
    ("coding", "change"),
    [("2121", {"flops": 1}), ("2121", {"params": 1}), ("1002", {"mean_acc": 1.5})],
)
def test_a_table_that_contradicts_a_count_or_itself_is_refused(tabular, small, coding, change):
    small.data[coding] |= change
    small.write()
    with pytest.raises(ValueError, match=r"^`table` must have .* Received: .*1"):
        tabular.read_table(str(small.path), small.space)
    del small.data[coding]
    small.write()
    with pytest.raises(ValueError, match="^`table` must have 81 codings. Received: "):
        tabular.read_table(str(small.path), small.space)


def test_shares_grow_and_come_near_one_before_every_network_is_asked(tabular, small):
    table = tabular.read_table(str(small.path), small.space)
    shares = tabular.measured(small.space, table, 40, [0, 1])
    assert list(shares) == ["random", "coarse_to_fine", "evolution", "nsga2"]
    for curves in shares.values():
        assert [len(curve) for curve in curves] == [40, 40]
        assert all(curve == sorted(curve) and 0 <= curve[0] <= 1 for curve in curves)
        assert min(curve[-1] for curve in curves) > 0.9
        assert curves[0] != curves[1]
    rows = {(r["strategy"], r["queries"]): r for r in tabular.summary(shares, [20, 40])}
    values = sorted(curve[19] for curve in shares["nsga2"])
    assert rows["nsga2", 20] == {
        "strategy": "nsga2", "queries": 20, "median": np.mean(values),
        "low": values[0], "high": values[1],
    }  # fmt: skip


# Children of a run -------------------------------------------------------------------


def test_a_gain_is_the_mean_over_budgets_of_the_best_child_over_the_worst(strategies):
    space = tiny_space()
    accuracy = uneven(1)
    points = [
        {"accuracy": accuracy(genotype), "mmacs": measure(genotype, "mmacs")}
        for genotype in dict.fromkeys(space.sample(30, seed=0))
    ]
    least = min(point["accuracy"] for point in points)
    found = strategies.gains(points, space, least)
    low, high = measure(space.smallest(), "mmacs"), measure(space.biggest(), "mmacs")
    for number in (1, 10, len(points)):
        steps = front(points[:number])
        limits = [*(step["mmacs"] for step in steps), high]
        areas = [
            (b - a) * (step["accuracy"] - least)
            for step, (a, b) in zip(steps, itertools.pairwise(limits), strict=True)
        ]
        expected = 100 * sum(areas) / (high - low)
        assert found[number - 1] == pytest.approx(expected, abs=1e-9)
    assert found[0] < found[9] < found[-1]


def test_no_child_is_evaluated_twice_for_any_strategy_or_call(strategies, tmp_path):
    space = tiny_space()
    makers = strategies.searches(space, strategies.budgets_of(space, None), 40, 4)

    def compared(evaluator):
        cached = CachedEvaluator(evaluator, space, tmp_path / "points.jsonl")
        return strategies.compare(makers, cached, 40, range(2))

    class Killed(Exception):
        pass

    calls = itertools.count()

    def killed(genotype):
        if next(calls) == 50:
            raise Killed
        return noisy(genotype)

    first = TabularEvaluator(killed)
    with pytest.raises(Killed):
        compared(first)
    second = TabularEvaluator(noisy)
    rows = compared(second)
    evaluated = [*first.evaluated[:50], *second.evaluated]
    assert len(evaluated) == len(set(evaluated)) < len(rows) == 4 * 2 * 40
    nothing = TabularEvaluator({})
    assert compared(nothing) == rows
    assert nothing.evaluated == []
    curves = strategies.curves_of(rows, 40)
    assert all(len(curve) == 40 for own in curves.values() for curve in own)
    last = {r["strategy"]: r["median"] for r in strategies.summary(curves, 40)}
    assert last["nsga2"] == np.median([curve[-1] for curve in curves["nsga2"]])


def test_strategies_search_as_they_do_by_themselves(strategies):
    space = tiny_space()
    budgets = strategies.budgets_of(space, None)
    assert [budget.limit for budget in budgets][-1] == measure(space.biggest(), "mmacs")
    cached = CachedEvaluator(TabularEvaluator(noisy), space)
    makers = strategies.searches(space, budgets, 40, 4)
    assert isinstance(makers["coarse_to_fine"](0), CoarseToFine)
    found = strategies.search(makers["random"](3), cached, 40, lambda: None)
    alone = RandomSearch(space, budgets, 3, 40)
    asked = []
    while genotypes := alone.ask(40):
        asked += genotypes
        alone.tell(genotypes, [{"accuracy": noisy(genotype)} for genotype in genotypes])
    assert [point["genotype"] for point in found] == asked
    assert {point["phase"] for point in found} == {"random"}


def test_tables_and_plots_are_written(strategies, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    space = tiny_space()
    cached = CachedEvaluator(TabularEvaluator(noisy), space, tmp_path / "points.jsonl")
    monkeypatch.setattr(strategies, "open_run", lambda *_: cached)
    given = [f"--folder={tmp_path}", "--workdir=run", "--evaluations=40", "--seeds=2"]
    flags.FLAGS(["search_strategies", *given], known_only=True)
    strategies.main(["search_strategies"])
    with (tmp_path / "evaluations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 40
    assert rows[0].keys() >= {"strategy", "seed", "evaluation", "gain", "accuracy", "mmacs"}
    with (tmp_path / "summary.csv").open(newline="") as file:
        found = [(row["strategy"], row["evaluations"]) for row in csv.DictReader(file)]
    names = ("random", "coarse_to_fine", "nsga2")
    assert found == [(name, number) for name in names for number in ("10", "20", "40")]
    assert (tmp_path / "hypervolume.png").stat().st_size > 10_000
    flags.FLAGS(["search_strategies", *given[:2], "--evaluations=20"], known_only=True)
    with pytest.raises(ValueError, match="`evaluations` must be at least 32, the coarse grid"):
        strategies.main(["search_strategies"])


# Evaluation --------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "count"), [(100, 24), (25, 24), (24, 24), (9, 24), (50, 5)])
def test_a_phase_is_sampled_in_runs_of_neighbours_from_its_first_to_its_last(
    benchmark, there, count
):
    evaluation = benchmark("evaluation")
    found = evaluation.sample(range(there), count)
    assert len(found) == min(there, count) == len(set(found))
    steps = np.diff(found)
    runs = 1 + np.count_nonzero(steps > 1)
    assert all(steps >= 1) and runs <= -(-count // evaluation.RUN)
    assert count < evaluation.RUN or (found[0], found[-1]) == (0, there - 1)
    assert np.ptp(steps[steps > 1]) <= 1 if runs > 1 else True
