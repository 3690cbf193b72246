"""`bignas sweep`: which runs it makes, what it measures, and what a kill leaves to do."""

import json
import re
import shutil
import signal
import weakref

import numpy as np
import pytest
from commands_fixture import TINY, WARNINGS, assert_refused, files, read
from PIL import Image
from sweep_fixture import (
    FILE,
    MIDDLE,
    ONE,
    SET,
    STEPS,
    Steps,
    call,
    done,
    eagerly_registered,
    kill,
    rows,
)

from bignas_tf import cost
from bignas_tf.data.pipeline import TrainingBatches
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.intervals import t_interval, wilson_interval
from bignas_tf.search.results import read_selected
from bignas_tf.sweep import runs
from bignas_tf.sweep.results import summary
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.state import load_trained
from bignas_tf.training.tensorflow_loop import TensorflowLoop

pytestmark = WARNINGS
HUGE = {"schedule": {"kind": "cosine", "initial": 1e30}}


@pytest.fixture(autouse=True, scope="module")
def eager_and_tiny_by_name():
    yield from eagerly_registered()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep that nothing stopped, and what it said."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        Steps(patch)
        said = done(folder, FILE)
    return folder, said


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


def test_all_variants_of_a_seed_come_before_the_next_seed(finished):
    folder, said = finished
    order = [(row["seed"], row["variant"], row["child"]) for row in rows(folder)]
    children = ["biggest", "smallest", "s", "l"]
    assert order == [(s, v, c) for s in "03" for v in ("full", "plain") for c in children]
    assert said.splitlines()[:3] == [
        "run 1 of 4: full-seed0",
        "run 2 of 4: plain-seed0, about 0:00:12 left",
        "run 3 of 4: full-seed3, about 0:00:08 left",
    ]


def test_every_row_has_the_figures_of_its_child_of_the_loaded_run(finished):
    folder, _ = finished
    *_, biggest, smallest, small, large = rows(folder)
    run = folder / "runs" / "plain-seed3"
    trained = load_trained(run)
    assert (trained.recipe.seed, trained.recipe.distillation) == (3, False)
    assert (trained.recipe.random_children, trained.recipe.epochs) == (1, 2)
    data = load_run_data(trained.recipe)
    test = ChildEvaluator(trained.supernet, data.calibration, data.source.test)
    held_out = ChildEvaluator(trained.supernet, data.calibration, data.held_out)
    chosen = [TINY.genotype(entry["genotype"]) for entry in read_selected(run / "select")]
    genotypes = [TINY.biggest(), TINY.smallest(), *chosen]
    predictions = np.load(run / "predictions.npz")
    for row, genotype in zip((biggest, smallest, small, large), genotypes, strict=True):
        assert json.loads(row["genotype"]) == genotype.as_dict()
        (expected,) = test.score([genotype])
        assert float(row["top1"]) == expected["accuracy"]
        interval = (float(row["top1_low"]), float(row["top1_high"]))
        assert interval == wilson_interval(expected["accuracy"], 359)
        stale = test.logits(genotype, donor=TINY.biggest()).argmax(-1)
        uncalibrated = (stale == data.source.test.labels).mean()
        if genotype == TINY.biggest():
            assert row["top1_uncalibrated"] == ""
        else:
            assert float(row["top1_uncalibrated"]) == uncalibrated
        right = predictions[row["child"]] == predictions["labels"]
        assert right.mean() == expected["accuracy"]
        assert float(row["held_out_top1"]) == held_out.score([genotype])[0]["accuracy"]
        counted = cost.count(genotype.spec())
        assert float(row["mmacs"]) == counted.mmacs
        assert float(row["params_m"]) == counted.params_m
        assert row["resolution"] == str(genotype["resolution"])
        assert (row["test_images"], row["steps"], row["train_seconds"]) == ("359", "4", "4.0")
        assert (row["status"], row["recipe"], row["data"]) == ("finished", "digits", "digits")
        assert json.loads(row["overrides"]) == SET | FILE["variants"]["plain"]
        assert row["backend"] == "tensorflow"
        assert row["device"].startswith(("cpu ", "gpu "))
    assert float(small["mmacs"]) <= MIDDLE + 1e-6


def test_the_last_lines_are_a_table_of_means_over_seeds(finished):
    folder, said = finished
    values = [
        float(r["top1"]) for r in rows(folder) if (r["variant"], r["child"]) == ("plain", "s")
    ]
    low, high = t_interval(values)
    interval = f"{max(low, 0):.2%} to {min(high, 1):.2%}"
    lines = [re.split("  +", line) for line in said.splitlines()]
    compared = ["against full", "95 %"]
    assert lines[4] == ["variant", "child", "seeds", "top1", "95 % over seeds", *compared]
    full = [float(r["top1"]) for r in rows(folder) if (r["variant"], r["child"]) == ("full", "s")]
    differences = 100 * (np.array(values) - full)
    low, high = t_interval(differences.tolist())
    paired = [f"{differences.mean():+.2f}", f"{low:+.2f} to {high:+.2f}"]
    assert ["plain", "s", "2", f"{np.mean(values):.2%}", interval, *paired] in lines
    assert len(lines) == 4 + 1 + 2 * 4 + 1
    (_, alone) = summary(rows(folder)[:1])  # one seed has no interval
    assert alone.split() == ["full", "biggest", "1", f"{float(rows(folder)[0]['top1']):.2%}"]


def test_a_killed_sweep_goes_on_within_its_run_and_ends_like_one_that_was_not(
    finished, copy, monkeypatch
):
    path = copy / "runs" / "results.csv"
    lines = path.read_text().splitlines(keepends=True)
    others = [line for line in lines if not line.startswith("plain,0,")]
    path.write_text("".join(others))
    shutil.rmtree(copy / "runs" / "plain-seed0")
    with monkeypatch.context() as patch:
        Steps(patch, at=4, what=kill)  # there is a checkpoint of step 2
        status, out, _ = call(copy, FILE)
    assert (status, out.splitlines()[-1]) == (130, "stopped; the same command resumes")
    assert path.read_text() == "".join(others)
    steps = Steps(monkeypatch)
    out = done(copy, FILE)
    assert out.splitlines()[:2] == [
        "run 1 of 4: full-seed0 is in results.csv",
        "run 2 of 4: plain-seed0",
    ]
    assert steps.made == STEPS - 2
    assert read(copy / "runs" / "plain-seed0" / "run.json")["resumed"][0]["step"] == 2
    assert rows(copy) == rows(finished[0])  # train_seconds too


@pytest.mark.slow
@pytest.mark.parametrize("at", ["training", "measuring"])
def test_sigterm_ends_a_sweep_that_the_same_command_goes_on_with(tmp_path, monkeypatch, at):
    def terminate(*arguments):
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        if at == "training":
            Steps(patch, at=3, what=terminate)
        else:
            patch.setattr(runs, "_measure", terminate)
        status, out, _ = call(tmp_path, ONE)
    assert (status, out.splitlines()[-1]) == (130, "stopped; the same command resumes")
    assert not (tmp_path / "runs" / "results.csv").exists()
    steps = Steps(monkeypatch)
    done(tmp_path, ONE)
    assert steps.made == (STEPS - 3 if at == "training" else 0)
    assert [row["child"] for row in rows(tmp_path)] == ["biggest", "smallest"]


def test_a_second_sweep_in_the_folder_is_refused_while_the_first_goes_on(tmp_path, monkeypatch):
    refused = []

    def measure(*_):
        if not refused:
            refused.append(None)  # the second is not to get here
            refused[0] = call(tmp_path, ONE)
        return [{"child": "biggest", "top1": 0.5}]

    monkeypatch.setattr(runs, "_measure", measure)
    done(tmp_path, ONE)
    (second,) = refused
    assert_refused(second, "^error: `workdir` must be written to by one process. .* by process ")
    assert [row["top1"] for row in rows(tmp_path)] == ["0.5"]


def test_the_images_of_a_run_that_is_over_are_not_kept(tmp_path, monkeypatch):
    kept, begin = [], TrainingBatches.__init__

    def noted(batches, *arguments):
        kept.append(weakref.ref(batches))
        begin(batches, *arguments)

    monkeypatch.setattr(TrainingBatches, "__init__", noted)
    done(tmp_path, ONE)
    assert kept and not [batches for batches in kept if batches() is not None]


def test_runs_that_are_in_the_results_are_not_made_again(copy, monkeypatch):
    before = files(copy / "runs")
    Steps(monkeypatch, at=1, what=kill)
    monkeypatch.setattr(runs, "_measure", kill)
    done(copy, FILE)
    assert files(copy / "runs") == before


def test_a_diverged_run_is_recorded_and_others_may_be_added(tmp_path, monkeypatch):
    variants = {"bad": HUGE, "good": {}}
    done(tmp_path, ONE | {"variants": variants})
    first = rows(tmp_path)
    assert [row["variant"] for row in first] == ["bad", "good", "good"]
    bad = first[0]
    assert bad["status"].startswith(f"diverged at step {bad['steps']} (")
    assert bad["status"][:-1].rpartition("(")[2] in ("biggest", "smallest", "random1", "random2")
    assert (bad["child"], bad["top1"], bad["held_out_top1"]) == ("", "", "")
    # A variant that the file no longer has keeps its rows.
    steps = Steps(monkeypatch)
    out = done(tmp_path, ONE | {"variants": {"new": {"held_out": 0, "batch_size": 700}} | variants})
    assert steps.made == 2 * (1438 // 700)
    assert rows(tmp_path)[2:] == first
    assert rows(tmp_path)[0]["held_out_top1"] == ""
    assert f"bad of seed 0 {bad['status']}" in out.splitlines()
    done(tmp_path, ONE | {"variants": {"good": {}}, "seeds": [0]})
    assert len(rows(tmp_path)) == 5


@pytest.mark.slow
def test_a_run_whose_weights_diverge_after_a_finite_loss_does_not_end_the_sweep(
    tmp_path, monkeypatch
):
    def breaks(loop, chunk, step):
        if step == 1 and loop._seed == 0:  # the last of an epoch, which is saved
            loop._variables[0].assign(loop._variables[0] * np.nan)
        return [{"biggest": 1.0}]

    monkeypatch.setattr(TensorflowLoop, "train", breaks)
    monkeypatch.setattr(runs, "_measure", lambda *_: [{"child": "biggest", "top1": 0.5}])
    out = done(tmp_path, ONE | {"seeds": [0, 3]})
    found = [(row["seed"], row["status"], row["top1"]) for row in rows(tmp_path)]
    assert found == [("0", "diverged at step 2 (weights)", ""), ("3", "finished", "0.5")]
    assert "one of seed 0 diverged at step 2 (weights)" in out.splitlines()


def changed(**fields):
    return FILE | {"set": SET | fields}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (changed(epochs=3), "epochs; .*delete .*full-seed0 and the rows.*Received: 3, was: 2"),
        (changed(optimizer={"kind": "sgd", "momentum": 0.8}), "optimizer; "),
        (FILE | {"select": None}, "select; .*delete the rows .*measure the same weights"),
        (FILE | {"select": FILE["select"] | {"seed": 1}}, "select; "),
        (FILE | {"children": {"tiny": TINY.smallest().as_dict()}}, "children; .*delete the rows "),
    ],
)
def test_results_of_other_settings_are_refused(copy, content, what):
    before = files(copy / "runs")
    result = call(copy, content)
    assert_refused(result, f"^error: Run 'full-seed0' was made with another {what}")
    assert files(copy / "runs") == before


def test_options_of_the_search_that_are_newer_than_a_run_had_their_defaults_there(copy):
    for path in (copy / "runs").glob("*/sweep.json"):
        content = json.loads(path.read_text())
        del content["settings"]["select"]["fine_candidates"]
        path.write_text(json.dumps(content))
    before = files(copy / "runs")
    done(copy, FILE)
    assert files(copy / "runs") == before
    result = call(copy, FILE | {"select": FILE["select"] | {"fine_candidates": 7}})
    assert_refused(result, "^error: Run 'full-seed0' was made with another select; ")


def test_other_images_are_refused_and_so_is_a_run_of_unknown_settings(copy, tmp_path):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(900):
            Image.new("L", (8, 8)).save(tmp_path / "images" / name / f"{number}.bmp")
    result = call(copy, FILE, f"--data=folder:{tmp_path / 'images'}")
    assert_refused(result, "^error: Run 'full-seed0' was made with another data; ")
    (copy / "runs" / "plain-seed0" / "sweep.json").unlink()
    message = "plain-seed0 must hold sweep.json, .* rows in results.csv. Received: none"
    assert_refused(call(copy, FILE), message)


def test_a_run_that_was_begun_does_not_go_on_for_another_number_of_epochs(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        Steps(patch, at=3, what=kill)
        call(tmp_path, ONE)
    other = ONE | {"set": SET | {"epochs": 3}}
    assert_refused(call(tmp_path, other), "^error: Run 'one-seed0' was made with another epochs")


@pytest.mark.slow
def test_other_children_are_selected_from_the_same_weights_once_the_rows_are_gone(
    copy, monkeypatch
):
    path = copy / "runs" / "results.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    steps = Steps(monkeypatch)
    select = FILE["select"] | {"budget": f"mmacs:{MIDDLE:.6f}", "names": "m"}
    done(copy, FILE | {"select": select})
    assert steps.made == 0
    found = [(row["variant"], row["child"]) for row in rows(copy)]
    assert found[:4] == [("full", c) for c in ("biggest", "smallest", "m")] + [("plain", "biggest")]
    assert [row["train_seconds"] for row in rows(copy)] == ["4.0"] * 12
