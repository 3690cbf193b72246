import dataclasses
import re
import shutil

import keras
import numpy as np
import pytest
from commands_fixture import (
    BIG,
    SMALL,
    TINY,
    TRAIN,
    WARNINGS,
    assert_refused,
    bignas,
    done,
    files,
    read,
    registered,
    selected,
    train,
)
from PIL import Image

from bignas_tf import cost
from bignas_tf.commands import convert, run_folder
from bignas_tf.data import load_source
from bignas_tf.deploy import tflite
from bignas_tf.deploy.interpreter import predict
from bignas_tf.resize import prepare
from bignas_tf.search.results import read_selected
from bignas_tf.training import run_data
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.run_data import load_run_data

pytestmark = WARNINGS


@pytest.fixture(autouse=True, scope="module")
def tiny_by_name():
    yield from registered()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to do as one likes with."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    """The whole way; what each command said."""
    workdir = shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "run")
    said = {}
    budget = f"--budget=mmacs:{(SMALL + BIG) / 2:.6f},{BIG:.6f}"
    search = ("--names=s,l", "--fine_rounds=0")
    said["select"] = done("select", f"--workdir={workdir}", budget, *search)
    for command in ("extract", "evaluate"):
        said[command] = done(command, f"--workdir={workdir}")
    (workdir / "children" / "l.keras").rename(workdir / "l.keras")  # one conversion is enough
    said["convert"] = done("convert", f"--workdir={workdir}")
    (workdir / "l.keras").rename(workdir / "children" / "l.keras")
    said["benchmark"] = done("benchmark", f"--workdir={workdir}", "--runs=1", "--rounds=1")
    said["report"] = done("report", f"--workdir={workdir}")
    return workdir, said


def test_selected_children_are_within_their_budgets_and_as_accurate_as_said(finished):
    workdir, said = finished
    data = load_run_data(Recipe.from_json(read(workdir / "run.json")["recipe"]))
    images = data.held_out.read(np.arange(len(data.held_out)))
    limits = {"s": (SMALL + BIG) / 2, "l": BIG}
    for entry in read_selected(workdir / "select"):
        name, genotype = entry["name"], TINY.genotype(entry["genotype"])
        assert cost.count(genotype.spec()).mmacs == entry["mmacs"] <= limits[name] + 1e-6
        child = keras.models.load_model(workdir / "children" / f"{name}.keras")
        logits = child.predict(prepare(images, genotype["resolution"]), verbose=0)
        accuracy = np.mean(logits.argmax(-1) == data.held_out.labels)
        assert entry["accuracy"] == pytest.approx(accuracy, abs=1.5 / len(images))
        assert f"{name}: {entry['accuracy']:.2%} of 1200 held-out images" in said["select"]


class Sealed:
    """Test images that nobody may look at, not even count."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test images were asked for {name}")

    def __len__(self):
        raise AssertionError("the test images were counted")


def test_a_selection_never_looks_at_the_test_images(run, monkeypatch):
    def sealed(*arguments, **options):
        return dataclasses.replace(load_source(*arguments, **options), test=Sealed())

    monkeypatch.setattr(run_data, "load_source", sealed)
    done("select", f"--workdir={run}", f"--budget=mmacs:{BIG:.6f}", "--fine_rounds=1")
    # Not for want of a seal: what must look at them cannot.
    done("extract", f"--workdir={run}")
    with pytest.raises(AssertionError, match="the test images were"):
        done("evaluate", f"--workdir={run}")


def test_the_evaluation_has_the_accuracy_of_every_saved_child(finished):
    workdir, said = finished
    data = load_run_data(Recipe.from_json(read(workdir / "run.json")["recipe"]))
    test = data.source.test
    images = test.read(np.arange(len(test)))
    evaluation = read(workdir / "evaluation.json")
    assert list(evaluation["children"]) == ["s", "l"]
    assert (evaluation["split"], evaluation["images"]) == ("test", len(test))
    for name, genotype in selected(workdir).items():
        child = keras.models.load_model(workdir / "children" / f"{name}.keras")
        logits = child.predict(prepare(images, genotype["resolution"]), verbose=0)
        row = evaluation["children"][name]
        assert row["top1"] == np.mean(logits.argmax(-1) == test.labels)
        assert f"{name}: {row['top1']:.2%} (" in said["evaluate"]


def test_a_converted_child_is_described_by_its_own_figures(finished):
    workdir, _ = finished
    genotype = selected(workdir)["s"]
    described = read(workdir / "s.json")
    counted = cost.count(genotype.spec())
    assert (described["macs"], described["params"]) == (counted.macs, counted.params)
    assert described["genotype"] == genotype.as_dict()
    assert (described["child"], described["scores"]) == ("s", "logits")
    assert described["bytes"] == (workdir / "s.tflite").stat().st_size
    assert described["labels"] == [str(digit) for digit in range(10)]
    child = keras.models.load_model(workdir / "children" / "s.keras")
    shape = (3, genotype["resolution"], genotype["resolution"], 1)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    found = predict(workdir / "s.tflite", images)
    np.testing.assert_allclose(found, child(images), atol=1e-4)


def test_a_single_file_evaluates_to_the_accuracy_of_the_run(finished):
    workdir, _ = finished
    top1 = read(workdir / "evaluation.json")["children"]["s"]["top1"]
    for file in ("children/s.keras", "s.tflite"):
        out = done("evaluate", f"--model={workdir / file}", "--data=digits")
        assert f"{file}: {top1:.2%} (" in out


def test_a_single_file_is_evaluated_in_the_input_range_that_it_tells(finished, tmp_path):
    workdir, _ = finished
    top1 = read(workdir / "evaluation.json")["children"]["s"]["top1"]
    child = keras.models.load_model(workdir / "children" / "s.keras")
    inputs = keras.Input(child.inputs[0].shape[1:])
    of_bytes = keras.Model(inputs, child(keras.layers.Rescaling(1 / 127.5, -1)(inputs)))
    of_bytes.save(tmp_path / "bytes.keras")
    out = done("evaluate", f"--model={tmp_path / 'bytes.keras'}", "--data=digits")
    # Rounding may turn images whose best two classes are as good as equal: there are some where a
    # child has hardly been trained.
    found = float(re.search(r"bytes.keras: (.*?)% ", out)[1]) / 100
    assert found == pytest.approx(top1, abs=6 / 359)
    shutil.copy(workdir / "children" / "s.keras", tmp_path)
    (tmp_path / "s.json").write_text('{"input_range": [-0.01, 0.01]}')
    out = done("evaluate", f"--model={tmp_path / 's.keras'}", "--data=digits")
    assert f"{top1:.2%}" not in out


def test_the_report_names_every_child(finished):
    workdir, _ = finished
    page = (workdir / "report.html").read_text()
    for name, row in read(workdir / "evaluation.json")["children"].items():
        assert re.search(rf"<t[dh][^>]*>\s*{name}\s*<", page), name
        assert f"{100 * row['top1']:.1f}" in page


def test_every_command_records_how_it_was_called_and_on_what(finished):
    workdir, _ = finished
    checkpoint = max(path.name for path in (workdir / "checkpoints").iterdir())
    for command in ("select", "extract", "evaluate", "convert"):
        entry = read(workdir / f"run.{command}.json")
        assert entry["command"].startswith(f"bignas {command} --workdir={workdir}")
        assert entry["checkpoint"] == checkpoint
    assert read(workdir / "run.select.json")["seeds"] == {"search": 0}
    entry = read(workdir / "run.benchmark.json")  # loads no checkpoint
    assert entry["command"].startswith(f"bignas benchmark --workdir={workdir}")
    assert "checkpoint" not in entry


@pytest.mark.parametrize("images", [1, 2, 7, 320, 1000])
def test_a_sorted_split_is_checked_and_calibrated_with_images_of_every_class(images):
    labels = np.sort(np.arange(images) % 10)
    verified, calibrated = convert.spread(images)
    assert len(verified) == min(64, max(1, images // 5))
    assert len(calibrated) == min(256, max(1, images - len(verified)))
    assert images == 1 or not set(verified) & set(calibrated)
    for chosen in (verified, calibrated):
        assert len(set(chosen)) == len(chosen)
        if len(chosen) >= 20:
            assert np.bincount(labels[chosen]).min() >= len(chosen) // 10 - 1


def test_only_the_images_that_are_needed_are_read(finished, tmp_path, monkeypatch):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    sizes = {}

    def receive(model, output, **arguments):
        sizes[output.name] = [
            len(arguments[f"{use}_images"] if arguments[f"{use}_images"] is not None else ())
            for use in ("verification", "calibration")
        ]
        raise ValueError("enough")

    monkeypatch.setattr(tflite, "convert", receive)
    command = ("convert", f"--workdir={workdir}", "--overwrite")
    assert_refused(bignas(*command), "enough")
    assert_refused(bignas(*command, "--quantization=int8"), "enough")
    variant = ("--quantization=int8", "--io=uint8", "--preprocessing=inside")
    assert_refused(bignas(*command, *variant), "enough")
    names = ("s_int8.tflite", "s_int8_uint8_inside.tflite")
    assert sizes == {"s.tflite": [12, 0], **dict.fromkeys(names, [12, 52])}  # of 64 images
    # Only work that succeeds is recorded.
    assert "int8" not in read(workdir / "run.convert.json")["command"]


def test_a_child_that_fails_its_check_does_not_keep_the_others_from_theirs(
    finished, tmp_path, monkeypatch
):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    before, tried = files(workdir), []

    def fail(model, output, **arguments):
        tried.append(output.name)
        raise tflite.VerificationError("it differs")

    monkeypatch.setattr(tflite, "convert", fail)
    status, _, err = bignas("convert", f"--workdir={workdir}", "--quantization=float16")
    assert (status, err) == (1, "error: s: it differs; l: it differs\n")
    assert tried == ["s_float16.tflite", "l_float16.tflite"]
    assert files(workdir) == before


def test_a_model_that_fails_its_check_ends_in_status_1(finished, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise tflite.VerificationError("it differs")

    monkeypatch.setattr("bignas_tf.deploy.tflite.compare", fail)
    model, output = finished[0] / "children" / "s.keras", tmp_path / "s.tflite"
    status, _, err = bignas("convert", f"--model={model}", f"--output={output}")
    assert (status, err) == (1, "error: it differs\n")
    assert not list(tmp_path.iterdir())


def test_a_child_cut_by_hand_is_evaluated_without_a_selection(run):
    out = done("extract", f"--workdir={run}", "--genotype=smallest", "--name=hand")
    assert f"{SMALL:.3f} MMACs, 6 px" in out
    described = read(run / "children" / "hand.json")
    assert described["genotype"] == TINY.smallest().as_dict()
    assert described["calibration"] == {"method": "sequential", "images": 64}
    done("evaluate", f"--workdir={run}")
    evaluation = read(run / "evaluation.json")
    # The supernet's smallest child, by way of a file and without.
    assert evaluation["children"]["hand"]["top1"] == evaluation["smallest"]["top1"]


@pytest.mark.parametrize("kept", ["s.tflite", "s.json"])
def test_a_conversion_replaces_no_file_unasked(finished, kept, tmp_path, monkeypatch):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    for path in workdir.glob("s.*"):
        if path.name != kept:
            path.unlink()
    before = files(workdir)
    monkeypatch.setattr(run_folder, "load_run", None)  # any work would fail
    result = bignas("convert", f"--workdir={workdir}")
    assert_refused(result, f"^error: the output exists already; set `overwrite`.*{kept}$")
    assert files(workdir) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output=a.tflite",), "`output` must be left out with `workdir`. Received: .*a.tflite"),
        (("--images=photos",), "`images` must be left out with `workdir`. Received: 'photos'"),
        (("--input_range=0,255",), "`input_range` must be left out with `workdir`"),
    ],
)
def test_what_a_run_knows_itself_is_not_taken(run, arguments, message):
    assert_refused(bignas("convert", f"--workdir={run}", *arguments), f"^error: {message}")


def test_a_single_model_needs_an_output_and_takes_no_source():
    assert_refused(bignas("convert", "--model=a.keras"), "`output` must be given with `model`")
    others = ("--output=a.tflite", "--data=digits")
    result = bignas("convert", "--model=a.keras", *others)
    assert_refused(result, "`data` must be left out with `model`; see `images`")


def test_a_search_does_not_go_on_with_weights_trained_further(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    done(*TRAIN, "--set=epochs=4", f"--workdir={workdir}")
    search = ("select", f"--workdir={workdir}", f"--budget=mmacs:{SMALL:.6f}", "--fine_rounds=0")
    before = files(workdir / "select")
    assert_refused(bignas(*search), "^error: The search in .* was made with another checkpoint")
    assert files(workdir / "select") == before
    done(*search, "--overwrite")
    (genotype,) = selected(workdir).values()
    assert genotype == TINY.smallest()


def test_a_model_is_not_judged_on_other_classes(finished, tmp_path):
    workdir, _ = finished
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("L", (8, 8)).save(tmp_path / name / f"{number}.png")
    arguments = ("evaluate", f"--model={workdir / 's.tflite'}", f"--data=folder:{tmp_path}")
    assert_refused(bignas(*arguments), "^error: `data` must have the classes of .*Received: a, b$")


def test_an_output_that_cannot_be_written_is_refused_before_the_work(finished, tmp_path):
    workdir, _ = finished
    (tmp_path / "file").write_text("mine")
    report = tmp_path / "file" / "report.html"
    result = bignas("report", f"--workdir={workdir}", f"--output={report}")
    assert_refused(result, f"^error: .*{report.parent}")
    model = workdir / "s.tflite"
    for output in (tmp_path / "file" / "a.csv", tmp_path / "missing" / "a.csv"):
        result = bignas("benchmark", f"--model={model}", f"--csv={output}")
        assert_refused(result, f"^error: the output's folder .* Received: {output.parent}$")
    model = workdir / "children" / "s.keras"
    for output in (tmp_path / "file" / "a.tflite", tmp_path / "missing" / "a.tflite"):
        result = bignas("convert", f"--model={model}", f"--output={output}")
        assert_refused(result, f"^error: the output's folder .* Received: {output.parent}$")
    assert (tmp_path / "file").read_text() == "mine"
