"""`bignas select`: what becomes of an earlier search, and whose weights a search is of."""

import argparse
import json
import pathlib
import shutil
import sys
import types

import numpy as np
import pytest

from bignas_tf import evaluation
from bignas_tf.commands import run_folder, select
from bignas_tf.extract import weights_identity
from bignas_tf.files import FolderInUse
from bignas_tf.search import CoarseToFine, TabularEvaluator, measure
from bignas_tf.search.results import read_selected
from bignas_tf.search.search_options import SearchOptions
from bignas_tf.spaces import get_space

SPACE = get_space("digits")
SMALL = measure(SPACE.smallest(), "mmacs")
BUDGET = f"--budget=mmacs:{SMALL * 1.01:.6f}"
EVERYTHING_THAT_IS_REFUSED = {
    "no budget": [],
    "names": [BUDGET, "--names=a,b"],
    "a name twice": [f"{BUDGET},{SMALL * 2:.6f}", "--names=a,a"],
    "budget": [f"--budget=mmacs:{SMALL / 2:.6f}"],
    "metric": ["--budget=macs:1"],
    "seed": [BUDGET, "--seed=-1"],
    "fine_candidates": [BUDGET, "--fine_candidates=0"],
    "fine_rounds": [BUDGET, "--fine_rounds=-1"],
    "at_least": [BUDGET, "--at_least=2"],
    "evaluations": [BUDGET, "--strategy=random", "--evaluations=0"],
    "population": [BUDGET, "--strategy=evolution", "--population=0"],
    "population of one": [BUDGET, "--strategy=nsga2", "--population=1"],
    "objectives": [BUDGET, "--strategy=nsga2", "--objectives=accuracy:max,flops:min"],
    "objectives of another strategy": [BUDGET, "--objectives=accuracy:max,mmacs:min"],
    "screening of a front": [BUDGET, "--strategy=nsga2", "--screen=4"],
    "evaluations of a grid": [BUDGET, "--evaluations=50"],
    "population of random": [BUDGET, "--strategy=random", "--population=20"],
    "fine_rounds of random": [BUDGET, "--strategy=random", "--fine_rounds=2"],
    "quantization without a device": [BUDGET, "--quantization=int8"],
    "latency_threads without a device": [BUDGET, "--latency_threads=2"],
    "a port without workers": [BUDGET, "--port=8470"],
}


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {"b/kernel": rng.normal(size=(3, 4)).astype("f"), "a/bias": np.zeros(3, "f")}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command on weights that may be exchanged and accuracies that are made up."""
    run = types.SimpleNamespace(weights=weights(), accuracy=lambda genotype: 0.5)
    run.workdir = tmp_path / "run"
    run.workdir.mkdir()

    def load_run(arguments):
        supernet = types.SimpleNamespace(space=SPACE, weight_arrays=lambda: run.weights)
        recipe = types.SimpleNamespace(held_out=0.1, to_json=dict)
        path = pathlib.Path("step_00000100.safetensors")
        trained = types.SimpleNamespace(supernet=supernet, recipe=recipe, path=path)
        return trained, types.SimpleNamespace(calibration=None, held_out=range(10))

    def call(*arguments):
        parser = argparse.ArgumentParser()
        select.add_arguments(parser)
        short = [] if any("--strategy" in word for word in arguments) else ["--fine_rounds=0"]
        argv = [f"--workdir={run.workdir}", *short, *arguments]
        monkeypatch.setattr(sys, "argv", ["bignas", "select", *argv])
        parsed = parser.parse_args(argv)
        parsed.command = "select"
        select.main(parsed)

    monkeypatch.setattr(run_folder, "load_run", load_run)
    monkeypatch.setattr(
        evaluation, "ChildEvaluator", lambda *_: TabularEvaluator(lambda g: run.accuracy(g))
    )
    run.call = call
    return run


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fail(genotype):
    raise OSError("no images")


def fail_after(count):
    left = [count]

    def accuracy(genotype):
        left[0] -= 1
        return 0.5 if left[0] >= 0 else fail(genotype)

    return accuracy


@pytest.mark.parametrize("arguments", EVERYTHING_THAT_IS_REFUSED.values(),
                         ids=EVERYTHING_THAT_IS_REFUSED)  # fmt: skip
def test_arguments_are_refused_before_an_earlier_search_is_touched(run, arguments):
    run.call(BUDGET)
    before = files(run.workdir)
    with pytest.raises(ValueError, match="` must be .*Received: "):
        run.call("--overwrite", *arguments)
    assert files(run.workdir) == before


@pytest.mark.parametrize("strategy", ["random", "evolution", "nsga2"])
def test_a_strategy_evaluates_as_many_children_as_it_is_told(run, strategy):
    run.accuracy = lambda genotype: measure(genotype, "mmacs") / 10
    budgets = f"--budget=mmacs:{SMALL * 2:.6f},{SMALL * 4:.6f}"
    bred = [] if strategy == "random" else ["--population=10"]
    run.call(budgets, f"--strategy={strategy}", "--evaluations=25", *bred)
    points = (run.workdir / "select" / "points.jsonl").read_text().splitlines()
    assert len(points) == 25
    small, big = read_selected(run.workdir / "select")
    assert small["mmacs"] <= SMALL * 2 < big["mmacs"] <= SMALL * 4


def test_budgets_that_get_the_same_child_are_told(run, capsys):
    run.accuracy = lambda genotype: 0.9 - measure(genotype, "mmacs") / 10
    run.call(f"--budget=mmacs:{SMALL * 1.01:.6f},{SMALL * 2:.6f}", "--names=s,m")
    s, m, _ = capsys.readouterr().out.splitlines()
    assert s.startswith("s: ") and "same child" not in s
    assert m == f"m{s[1:]} (the same child as s)"


def test_objectives_of_nsga2_are_those_of_the_command(run):
    run.call(
        BUDGET, "--strategy=nsga2", "--evaluations=2", "--objectives=params_m:min,accuracy:max"
    )
    state = json.loads((run.workdir / "select" / "state.json").read_text())
    assert state["settings"]["objectives"] == ["params_m:min", "accuracy:max"]


def test_a_new_search_without_a_result_gives_the_earlier_one_back(run):
    run.call(BUDGET)
    before = files(run.workdir)
    run.accuracy = fail
    with pytest.raises(OSError, match="no images"):
        run.call(BUDGET, "--overwrite")
    assert files(run.workdir) == before


def test_a_new_search_that_has_begun_replaces_the_earlier_one_and_goes_on(run):
    budget = f"--budget=mmacs:{SMALL * 3:.6f}"
    run.call(budget)
    count = len((run.workdir / "select" / "points.jsonl").read_text().splitlines())
    recorded = (run.workdir / "run.select.json").read_bytes()
    run.accuracy = fail_after(2)
    with pytest.raises(OSError, match="no images"):
        run.call(budget, "--overwrite", "--seed=3")
    points = run.workdir / "select" / "points.jsonl"
    begun = points.read_text().splitlines()
    assert len(begun) == 2 < count
    assert not (run.workdir / "select.old").exists()
    assert (run.workdir / "run.select.json").read_bytes() == recorded
    run.accuracy = lambda genotype: 0.75
    run.call(budget, "--seed=3")
    lines = points.read_text().splitlines()
    assert lines[:2] == begun
    assert len(lines) == count
    assert json.loads((run.workdir / "run.select.json").read_text())["seeds"] == {"search": 3}


@pytest.mark.parametrize("evaluated", [0, 1])
def test_what_a_killed_process_set_aside_is_dealt_with_next_time(run, evaluated):
    run.call(BUDGET)
    earlier = run.workdir / "select"
    before = files(earlier)
    aside = run.workdir / "select.old"
    earlier.rename(aside)
    if evaluated:
        shutil.copytree(aside, earlier)
        shutil.rmtree(earlier / "selected")
        (earlier / "state.json").unlink()
    run.accuracy = fail  # everything is known already
    run.call(BUDGET)
    assert not aside.exists()
    assert files(earlier) == before


def test_an_earlier_search_that_cannot_be_deleted_is_an_error(run, monkeypatch):
    run.call(BUDGET)

    def refuse(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(f"cannot delete {path}")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(PermissionError, match=r"cannot delete .*select\.old"):
        run.call(BUDGET, "--overwrite")


def test_a_search_goes_on_with_the_weights_that_it_began_with(run):
    run.call(BUDGET)
    before = files(run.workdir / "select")
    run.weights = {path: array.copy() for path, array in reversed(run.weights.items())}
    run.accuracy = fail  # nothing is evaluated again
    run.call(BUDGET)
    assert files(run.workdir / "select") == before


def test_weights_trained_anew_do_not_go_on_with_a_search_of_others(run):
    run.call(BUDGET)
    before = files(run.workdir)
    run.weights = weights(seed=1)
    with pytest.raises(ValueError, match=r"^The search in .* was made with another checkpoint or "):
        run.call(BUDGET)
    assert files(run.workdir) == before
    run.call(BUDGET, "--overwrite")
    identity = json.loads((run.workdir / "select" / "weights.json").read_text())
    assert identity.pop("conditions")["backend"] == "tensorflow"
    assert identity == {
        "checkpoint": "step_00000100.safetensors",
        "crc32": weights_identity(run.weights),
    }
    run.call(BUDGET)


def test_a_search_of_unknown_weights_is_refused(run):
    run.call(BUDGET)
    (run.workdir / "select" / "weights.json").unlink()
    with pytest.raises(ValueError, match=r"another checkpoint or .* was: unknown$"):
        run.call(BUDGET)


def test_a_second_search_in_the_folder_is_refused_while_the_first_goes_on(run):
    refused = []

    def accuracy(genotype):
        with pytest.raises(FolderInUse, match="being searched by process") as caught:
            run.call(BUDGET, "--overwrite")
        refused.append(caught)
        return 0.5

    run.accuracy = accuracy
    run.call(BUDGET)
    points = (run.workdir / "select" / "points.jsonl").read_text().splitlines()
    assert len(points) == len(refused) > 0
    run.call(BUDGET)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"fine_rounds": -2},
        {"evaluations": 0},
        {"evaluations": 1, "strategy": "random", "budget": "mmacs:1,2"},
        {"population": 1, "strategy": "nsga2"},
        {"screen": 1},
        {"quantization": "int4"},
        {"latency_threads": 0},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_refused_before_a_run_is_loaded(options):
    with pytest.raises(ValueError, match="` must be .*Received: "):
        SearchOptions(**{"budget": "mmacs:1", **options})


def test_a_limit_that_no_child_meets_is_refused_before_latency_is_measured(run):
    device = [f"--budget=mmacs:{SMALL / 2:.6f}+latency_ms:1", "--device=host"]
    with pytest.raises(ValueError, match="`budget` must be at least .* the smallest child"):
        run.call(*device)
    assert not (run.workdir / "latency_table.json").exists()


def test_the_command_and_the_library_search_alike_by_default():
    options = SearchOptions(budget=BUDGET.removeprefix("--budget="))
    by_command, by_library = options.new_strategy(SPACE), CoarseToFine(SPACE, options.budgets())
    assert by_command.state() == by_library.state()


def test_a_worker_takes_no_workers_of_its_own(run, monkeypatch):
    for name, value in (("ORACLE_IP", "10.0.0.1"), ("ORACLE_PORT", "8470"), ("TUNER_ID", "w")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(ValueError, match="`workers` must be left out with --role. Received: 3"):
        run.call("--role=worker", "--workers=3")
    with pytest.raises(ValueError, match="`budget` must be left out with --role=worker"):
        run.call("--role=worker", "--budget=mmacs:1")
    with pytest.raises(ValueError, match="`seed` must be left out with --role=worker"):
        run.call("--role=worker", "--seed=1")


def test_a_search_that_goes_on_under_other_conditions_says_so(run, capsys, monkeypatch):
    monkeypatch.setattr("bignas_tf.commands.worker_arguments._cores", lambda: 8)
    run.call(BUDGET)
    run.call(BUDGET)
    assert "begun with" not in capsys.readouterr().out
    monkeypatch.setattr("bignas_tf.commands.worker_arguments._cores", lambda: 2)
    for _ in range(2):  # what it began with is kept
        run.call(BUDGET)
        assert "The search was begun with threads 8, now 2: the last" in capsys.readouterr().out
    run.call(BUDGET, "--overwrite")
    assert "begun with" not in capsys.readouterr().out
