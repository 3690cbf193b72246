"""What a search writes for people and for the next command."""

from __future__ import annotations

import csv
import json
import os

import pytest
from landscapes import noisy, tiny_space

from bignas_tf.cost import count
from bignas_tf.search import (
    NSGA2,
    CoarseToFine,
    TabularEvaluator,
    front,
    measure,
    parse_budgets,
    parse_objectives,
    select,
)
from bignas_tf.search.results import is_unfinished, read_selected, write_results
from bignas_tf.spec import NetworkSpec

SPACE = tiny_space()
BUDGETS = parse_budgets("mmacs:0.06,0.1,0.2")


class WithLoss(TabularEvaluator):
    """Known accuracies, and a loss that is not a number for the smallest child."""

    def score(self, genotypes):
        (metrics,) = super().score(genotypes)
        smallest = genotypes[0] == SPACE.smallest()
        return [{**metrics, "loss": float("nan") if smallest else 1 - metrics["accuracy"]}]


def search(folder, names=("s", "m", "l")):
    strategy = CoarseToFine(SPACE, BUDGETS, fine_candidates=4, fine_rounds=1)
    evaluator = WithLoss(noisy)
    return select(
        SPACE, evaluator, BUDGETS, strategy=strategy, folder=folder, names=names, progress=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("select")
    search(folder)
    return folder


def rows(path):
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def genotype_of(row):
    return SPACE.genotype({gene.name: int(row[gene.name]) for gene in SPACE.genes})


def points(folder):
    return [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]


def test_every_evaluation_is_a_row_with_its_genes_accuracy_costs_and_phase(folder):
    trials = rows(folder / "trials.csv")
    assert [int(row["order"]) for row in trials] == list(range(1, len(points(folder)) + 1))
    for row, point in zip(trials, points(folder), strict=True):
        genotype = genotype_of(row)
        assert genotype.as_dict() == point["genotype"]
        cost = count(genotype.spec())
        assert float(row["mmacs"]) == cost.mmacs and float(row["params_m"]) == cost.params_m
        assert float(row["accuracy"]) == noisy(genotype)
        assert (row["loss"] == "nan") == (genotype == SPACE.smallest())
        assert (row["phase"], row["split"]) == (point["phase"], "table")
    assert {row["phase"] for row in trials} == {"coarse", "fine1"}


def test_the_front_is_the_rows_of_the_trials_that_no_other_dominates(folder):
    found = rows(folder / "front.csv")
    expected = front(points(folder))
    assert [genotype_of(row).as_dict() for row in found] == [p["genotype"] for p in expected]
    trials = rows(folder / "trials.csv")
    assert all(row in trials for row in found)


def test_a_chosen_child_has_a_file_of_its_own_with_its_network(folder):
    for name, budget in zip(("s", "m", "l"), BUDGETS, strict=True):
        described = json.loads((folder / "selected" / f"{name}.json").read_text())
        assert described["name"] == name
        spec = NetworkSpec.from_json(described["spec"])
        assert spec == SPACE.genotype(described["genotype"]).spec()
        assert count(spec).mmacs == described["mmacs"] <= budget.limit


def test_chosen_children_are_read_in_the_order_of_their_budgets(folder):
    # Not that of the alphabet.
    assert [entry["name"] for entry in read_selected(folder)] == ["s", "m", "l"]
    assert not {"order", "spec"} & set(read_selected(folder)[0])


def test_names_that_are_no_longer_asked_for_leave_no_file(tmp_path):
    search(tmp_path)
    search(tmp_path, names=["s", "middle", "big"])
    assert {path.name for path in (tmp_path / "selected").iterdir()} == {
        "s.json",
        "middle.json",
        "big.json",
    }


def test_what_does_not_change_is_not_written_again(folder):
    paths = [folder / "trials.csv", folder / "front.csv", *(folder / "selected").iterdir()]
    before = {path: path.stat().st_ino for path in paths}
    write_results(folder, SPACE, points(folder), read_selected(folder))
    assert {path: path.stat().st_ino for path in paths} == before


def test_a_file_is_replaced_whole_or_not_at_all(folder, monkeypatch):
    def refuse(*_):
        raise OSError("no rename")

    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no rename"):
        write_results(folder, SPACE, points(folder)[:3], read_selected(folder))
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_selection_that_is_not_there_is_said_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="selected is missing; `bignas select` writes it"):
        read_selected(tmp_path)


@pytest.mark.parametrize("name", ["a/b", "a/", "/s"])
def test_names_are_those_of_files(tmp_path, name):
    with pytest.raises(ValueError, match="`names` must be those of files, without folders"):
        search(tmp_path / "new", names=[name, "m", "l"])
    assert not (tmp_path / "new").exists()


def test_the_tables_have_every_metric_that_is_searched_for_and_the_front_is_of_those(tmp_path):
    budgets = parse_budgets("size_mb:0.06,0.1")
    objectives = parse_objectives("accuracy:max,size_mb:min,params_m:min")
    strategy = NSGA2(SPACE, budgets, evaluations=30, objectives=objectives)
    select(
        SPACE, TabularEvaluator(noisy), budgets, strategy=strategy, folder=tmp_path, progress=False
    )
    trials = rows(tmp_path / "trials.csv")
    assert all(float(row["size_mb"]) == measure(genotype_of(row), "size_mb") for row in trials)

    def beats(a, b):
        pairs = [(-float(a["accuracy"]), -float(b["accuracy"]))]
        pairs += [(float(a[name]), float(b[name])) for name in ("size_mb", "params_m")]
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    expected = [row for row in trials if not any(beats(other, row) for other in trials)]
    found = rows(tmp_path / "front.csv")
    assert sorted(row["order"] for row in found) == sorted(row["order"] for row in expected)
    assert [float(row["size_mb"]) for row in found] == sorted(float(r["size_mb"]) for r in found)


def test_a_selection_says_whether_its_search_has_finished(tmp_path):
    left = [12]

    def accuracy(genotype):
        left[0] -= 1
        if left[0] < 0:
            raise OSError("no images")
        return noisy(genotype)

    def again(table):
        strategy = CoarseToFine(SPACE, BUDGETS, fine_rounds=0)
        return select(
            SPACE, TabularEvaluator(table), BUDGETS, strategy=strategy, folder=tmp_path,
            progress=False,
        )  # fmt: skip

    with pytest.raises(OSError, match="no images"):
        again(accuracy)
    assert read_selected(tmp_path) and is_unfinished(tmp_path)
    selected = again(noisy)
    assert not is_unfinished(tmp_path)
    assert read_selected(tmp_path) == selected
