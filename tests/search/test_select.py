"""The driver: what it writes, what it chooses, and that a kill costs nothing."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest
from landscapes import OneHeadSpace, noisy, tiny_space

from bignas_tf.files import FolderInUse
from bignas_tf.search import (
    METRICS,
    Budget,
    CoarseToFine,
    RandomSearch,
    TabularEvaluator,
    measure,
    parse_budgets,
    register_metric,
    select,
)
from bignas_tf.search.results import read_selected
from bignas_tf.spaces import get_space

SPACE = tiny_space()
BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")
FILES = ("front.csv", "points.jsonl", "selected", "state.json", "trials.csv")
STRATEGIES = {
    "coarse_to_fine": functools.partial(CoarseToFine, fine_candidates=5, fine_rounds=2),
    "random_search": functools.partial(RandomSearch, evaluations=30),
}
every_strategy = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)


class Killed(BaseException):
    """Like a signal: nothing catches it."""


class KilledAfter(TabularEvaluator):
    """Evaluates `count` genotypes and dies in the middle of the next."""

    def __init__(self, table, count):
        super().__init__(table)
        self.count = count

    def score(self, genotypes):
        if len(self.evaluated) == self.count:
            raise Killed
        return super().score(genotypes)


def search(folder, make=STRATEGIES["coarse_to_fine"], evaluator=None, **changes):
    given = {"space": SPACE, "budgets": BUDGETS, "batch": 4, "progress": False, **changes}
    strategy = given.pop("strategy", None) or make(given["space"], given["budgets"], seed=7)
    return select(
        evaluator=evaluator or TabularEvaluator(noisy), strategy=strategy, folder=folder, **given
    )


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def load(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def points(folder):
    text = (folder / "points.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """By strategy: result, files and evaluations of a search that nothing interrupts."""

    @functools.cache
    def run(make):
        folder, evaluator = tmp_path_factory.mktemp("unbroken"), TabularEvaluator(noisy)
        return search(folder, make, evaluator), contents(folder), evaluator.evaluated

    return run


# What is chosen ----------------------------------------------------------------------


@every_strategy
@pytest.mark.parametrize("space", [SPACE, get_space("cifar")], ids=["tiny", "cifar"])
def test_each_child_is_the_best_of_all_evaluated_under_its_budget(tmp_path, make, space):
    limits = {"tiny": "0.06,0.1,0.2", "cifar": "3,5,8"}[space.name]
    budgets = parse_budgets(f"mmacs:{limits}")
    evaluator = TabularEvaluator(noisy)
    selected = search(tmp_path, make, evaluator, space=space, budgets=budgets)
    assert len(selected) == 3
    for entry, budget in zip(selected, budgets, strict=True):
        within = [g for g in evaluator.evaluated if measure(g, "mmacs") <= budget.limit]
        best = max(within, key=noisy)
        assert entry["genotype"] == best.as_dict()
        assert entry["accuracy"] == noisy(best)
        assert entry["mmacs"] == measure(best, "mmacs") <= budget.limit
        assert entry["params_m"] == measure(best, "params_m")
        assert entry["resolution"] == best["resolution"]
        assert entry["budget"] == {"mmacs": budget.limit}
        assert entry["name"] == budget.name
        assert entry["split"] == "table"


@every_strategy
def test_no_genotype_is_evaluated_twice(tmp_path, make):
    evaluator = TabularEvaluator(noisy)
    search(tmp_path, make, evaluator, space=tiny_space(OneHeadSpace))
    assert len(evaluator.evaluated) == len(set(evaluator.evaluated)) == len(points(tmp_path))


def test_a_larger_budget_never_gets_a_less_accurate_child(tmp_path):
    # Accuracy falls with MACs beyond 0.09: larger budgets can only repeat or tie.
    def peaked(genotype):
        return 0.9 - abs(measure(genotype, "mmacs") - 0.09)

    budgets = parse_budgets("mmacs:0.2,0.05,0.12,0.08,0.3")
    selected = search(tmp_path, evaluator=TabularEvaluator(peaked), budgets=budgets)
    by_limit = sorted(selected, key=lambda entry: entry["budget"]["mmacs"])
    accuracies = [entry["accuracy"] for entry in by_limit]
    assert accuracies == sorted(accuracies)


def test_budgets_that_choose_the_same_child_say_so(tmp_path):
    def falling(genotype):
        return 0.9 - measure(genotype, "mmacs")

    selected = search(tmp_path, evaluator=TabularEvaluator(falling), names=["s", "m", "l"])
    assert [entry["name"] for entry in selected] == ["s", "m", "l"]
    assert "same_as" not in selected[0]
    assert [entry["same_as"] for entry in selected[1:]] == ["s", "s"]
    assert {json.dumps(entry["genotype"]) for entry in selected} == {
        json.dumps(SPACE.smallest().as_dict())
    }


def test_of_two_as_accurate_the_cheaper_is_chosen(tmp_path):
    selected = search(tmp_path, evaluator=TabularEvaluator(lambda _: 0.5))
    assert all(entry["genotype"] == SPACE.smallest().as_dict() for entry in selected)


def test_cheaper_means_cheaper_in_the_budgets_metric(tmp_path):
    budgets = parse_budgets("mmacs:0.2;params_m:0.02")
    evaluator = TabularEvaluator(lambda genotype: genotype["resolution"] / 10)
    by_macs, by_params = search(tmp_path, evaluator=evaluator, budgets=budgets)
    assert by_macs["budget"] == {"mmacs": 0.2}
    assert by_params["budget"] == {"params_m": 0.02}
    for entry, metric in ((by_macs, "mmacs"), (by_params, "params_m")):
        limit = entry["budget"][metric]
        as_good = [p for p in points(tmp_path) if p["accuracy"] == 0.8 and p[metric] <= limit]
        assert entry[metric] == min(p[metric] for p in as_good)


def test_a_budget_in_a_metric_of_ones_own_is_met_and_reported(tmp_path):
    register_metric("layers", "layers", lambda spec: len(spec.ops()))
    try:
        limit = len(SPACE.smallest().spec().ops()) + 20
        (entry,) = search(tmp_path, budgets=[Budget("layers", limit)])
    finally:
        del METRICS["layers"]
    assert entry["layers"] == len(SPACE.genotype(entry["genotype"]).spec().ops()) <= limit
    assert entry["budget"] == {"layers": limit}


# What is written ---------------------------------------------------------------------


def test_the_folder_holds_points_front_selection_and_state(tmp_path):
    folder = tmp_path / "deep" / "search"
    selected = search(folder)
    assert tuple(sorted(path.name for path in folder.iterdir())) == FILES
    assert read_selected(folder) == selected
    phases = [point["phase"] for point in points(folder)]
    assert sorted(set(phases), key=phases.index) == ["coarse", "fine1", "fine2"]
    assert load(folder, "state.json")["told"] == [
        [list(point["genotype"].values()), point["accuracy"]] for point in points(folder)
    ]


def test_every_batch_leaves_a_whole_selection_behind(tmp_path):
    seen = []

    def accuracy(genotype):
        if (tmp_path / "selected").exists():
            done = len(load(tmp_path, "state.json")["told"])
            written = points(tmp_path)[:done]
            for entry in read_selected(tmp_path):
                limit = entry["budget"]["mmacs"]
                best = max(p["accuracy"] for p in written if p["mmacs"] <= limit)
                assert entry["accuracy"] == best
            seen.append(done)
        return noisy(genotype)

    search(tmp_path, evaluator=TabularEvaluator(accuracy))
    assert seen[:5] == [4, 4, 4, 4, 8]


def test_a_bar_shows_the_phase_and_how_much_is_left(tmp_path, capsys):
    search(tmp_path, progress=True)
    shown = capsys.readouterr().err
    count = len(points(tmp_path))
    assert "fine2" in shown
    assert f"{count}/{count}" in shown
    search(tmp_path / "silent", progress=False)
    assert capsys.readouterr().err == ""


# Kills -------------------------------------------------------------------------------


@every_strategy
@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 14, 15, 25])
@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
def test_a_resumed_search_equals_one_that_never_stopped(tmp_path, unbroken, make, count, torn):
    expected, files, evaluated = unbroken(make)
    folder, dying = tmp_path / "killed", KilledAfter(noisy, count)
    with pytest.raises(Killed):
        search(folder, make, dying)
    if torn and count:
        file = folder / "points.jsonl"
        file.write_bytes(file.read_bytes()[:-9])
    rest = TabularEvaluator(noisy)
    assert search(folder, make, rest) == expected
    assert contents(folder) == files
    repeated = int(torn and count > 0)
    assert dying.evaluated[: count - repeated] + rest.evaluated == evaluated


@every_strategy
def test_a_finished_search_is_read_back_without_an_evaluation(tmp_path, make):
    expected = search(tmp_path, make)
    before = contents(tmp_path)
    assert search(tmp_path, make, TabularEvaluator({})) == expected
    assert contents(tmp_path) == before


def test_points_that_the_state_counts_but_the_file_lost_are_evaluated_again(tmp_path):
    expected = search(tmp_path)
    count = len(points(tmp_path))
    (tmp_path / "points.jsonl").unlink()
    again = TabularEvaluator(noisy)
    assert search(tmp_path, evaluator=again) == expected
    assert len(again.evaluated) == len(points(tmp_path)) == count


def test_another_search_reuses_the_points_once_the_state_is_gone(tmp_path):
    first = TabularEvaluator(noisy)
    search(tmp_path, evaluator=first)
    (tmp_path / "state.json").unlink()
    second = TabularEvaluator(noisy)
    budgets = parse_budgets("mmacs:0.06,0.15")
    selected = search(tmp_path, evaluator=second, budgets=budgets)
    assert set(first.evaluated).isdisjoint(second.evaluated)
    everything = [*first.evaluated, *second.evaluated]
    for entry, budget in zip(selected, budgets, strict=True):
        assert entry["accuracy"] == max(noisy(g) for g in everything if budget.allows(g))


# Refusals ----------------------------------------------------------------------------


def test_an_infeasible_budget_is_refused_before_anything_is_evaluated(tmp_path):
    evaluator = TabularEvaluator(noisy)
    strategy = CoarseToFine(SPACE, BUDGETS)
    with pytest.raises(ValueError, match="`budget` must be at least .* 'tiny' at 6 px"):
        search(tmp_path / "new", strategy=strategy, evaluator=evaluator,
               budgets=[*BUDGETS, Budget("mmacs", 0.01)])  # fmt: skip
    assert not evaluator.evaluated
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "names", [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "a"], ["a", "", "c"]]
)
def test_names_must_fit_the_budgets(tmp_path, names):
    with pytest.raises(ValueError, match="`names` must be 3 different ones, one per budget"):
        search(tmp_path, names=names)


def test_no_budgets_and_no_batch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`budgets` must be at least one"):
        search(tmp_path, budgets=[], strategy=CoarseToFine(SPACE, BUDGETS))
    with pytest.raises(ValueError, match="`batch` must be an integer of at least 1"):
        search(tmp_path, batch=0)


def test_the_folder_of_another_search_is_refused(tmp_path):
    search(tmp_path)
    ways = r"state.json is of another search. Delete it to .* by --overwrite. `state.budgets`"
    with pytest.raises(ValueError, match=ways):
        search(tmp_path, budgets=BUDGETS[:1])
    with pytest.raises(ValueError, match="state.json is of another search. .* `state.strategy`"):
        search(tmp_path, STRATEGIES["random_search"])
    with pytest.raises(ValueError, match="A genotype of space 'digits' has the genes"):
        search(tmp_path, space=get_space("digits"), budgets=parse_budgets("mmacs:0.2"))


def test_a_second_search_in_a_folder_is_refused_while_the_first_goes_on(tmp_path):
    seen = []

    def accuracy(genotype):
        if not seen:
            with pytest.raises(FolderInUse, match="must be searched by one .*process") as e:
                search(tmp_path / "searched")
            seen.append(str(e.value))
            search(tmp_path / "another")
        return noisy(genotype)

    search(tmp_path / "searched", evaluator=TabularEvaluator(accuracy))
    assert str(tmp_path / "searched") in seen[0]
    assert contents(tmp_path / "searched") == contents(tmp_path / "another")
    search(tmp_path / "searched")  # it is over


def test_a_strategy_that_leaves_a_budget_without_a_child_is_an_error(tmp_path):
    class OnlyBiggest(CoarseToFine):
        def propose(self, number):
            return [] if number else [self.space.biggest()]

    with pytest.raises(RuntimeError, match="No child was evaluated under mmacs_0.06, mmacs_0.1"):
        search(tmp_path, OnlyBiggest)
    assert read_selected(tmp_path) == []


def test_a_strategy_that_waits_for_nothing_is_an_error(tmp_path):
    class Silent(CoarseToFine):
        def ask(self, n):
            return []

    with pytest.raises(RuntimeError, match="waits for results although it has them all"):
        search(tmp_path, Silent)


def test_the_search_package_loads_no_framework():
    code = (
        "import sys, bignas_tf.search; "
        "print(sorted({'keras', 'tensorflow', 'jax', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
