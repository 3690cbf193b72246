import contextlib
import io
import json
import re
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import bignas_tf.cli as cli
from bignas_tf import cost
from bignas_tf.commands import convert
from bignas_tf.deploy import tflite
from bignas_tf.deploy.interpreter import predict
from bignas_tf.resize import prepare
from bignas_tf.spaces import SPACES, MBConvSpace, Stage
from bignas_tf.training.checkpoints import read_checkpoint, write_checkpoint
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.trainer import load_run_data

TINY = MBConvSpace(
    name="tiny",
    resolution_choices=(6, 8),
    stem_widths=(4,),
    stem_strides=1,
    stages=(Stage((4, 8), (1, 2), (3,), (2,), 2),),
    head_widths=(16,),
    classes=10,
    input_channels=1,
)
SMALL, BIG = (cost.count(g.spec()).mmacs for g in (TINY.smallest(), TINY.biggest()))
TRAIN = (
    "train",
    "--recipe=digits",
    "--set=space=tiny",
    "--set=epochs=3",
    "--set=held_out=1200",
    "--set=calibration_images=64",
    '--set=schedule={"kind": "cosine", "initial": 0.1}',
)
# The same recipe with too few steps to matter.
SHORT = (*TRAIN, "--set=epochs=1", "--set=batch_size=200")

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates; eager steps draw
# tf.data's own warning that it is not run eagerly.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]


@pytest.fixture(autouse=True, scope="module")
def tiny_by_name():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES, "tiny", lambda: TINY)
        yield


def bignas(*arguments):
    """Runs a command in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["bignas", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", argv)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            # A few steps run faster as they are written than traced.
            tf.config.run_functions_eagerly(arguments[0] == "train")
            try:
                cli._main(cli._parse(argv))
            finally:
                tf.config.run_functions_eagerly(False)
    return stop.value.code, out.getvalue(), err.getvalue()


def done(*arguments):
    status, out, err = bignas(*arguments)
    assert status == 0, err
    return out


def assert_refused(result, message):
    status, _, err = result
    assert status == 2, err
    assert re.search(message, err.splitlines()[-1]), err.splitlines()[-1]


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run with nothing but its training."""
    workdir = tmp_path_factory.mktemp("trained")
    done(*TRAIN, f"--workdir={workdir}")
    return workdir


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


def selected(workdir):
    entries = read(workdir / "select" / "selected.json")
    return {entry["name"]: TINY.genotype(entry["genotype"]) for entry in entries}


def test_selected_children_are_within_their_budgets_and_as_accurate_as_said(finished):
    workdir, said = finished
    data = load_run_data(Recipe.from_json(read(workdir / "run.json")["recipe"]))
    images = data.held_out.read(np.arange(len(data.held_out)))
    limits = {"s": (SMALL + BIG) / 2, "l": BIG}
    for entry in read(workdir / "select" / "selected.json"):
        name, genotype = entry["name"], TINY.genotype(entry["genotype"])
        assert cost.count(genotype.spec()).mmacs == entry["mmacs"] <= limits[name] + 1e-6
        child = keras.models.load_model(workdir / "children" / f"{name}.keras")
        logits = child.predict(prepare(images, genotype["resolution"]), verbose=0)
        accuracy = np.mean(logits.argmax(-1) == data.held_out.labels)
        assert entry["accuracy"] == pytest.approx(accuracy, abs=1.5 / len(images))
        assert f"{name}: {entry['accuracy']:.2%} of 1200 held-out images" in said["select"]


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
    # Rounding may turn an image whose best two classes are as good as equal.
    found = float(re.search(r"bytes.keras: (.*?)% ", out)[1]) / 100
    assert found == pytest.approx(top1, abs=1.6 / 359)
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


def test_a_child_that_cannot_be_saved_leaves_the_older_one_and_no_record(run, monkeypatch):
    command = ("extract", f"--workdir={run}", "--genotype=smallest", "--name=hand")
    done(*command)
    before = files(run)

    def fail(child, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keras.Model, "save", fail)
    assert_refused(bignas(*command, "--method=batch_average"), "^error: No space left on device")
    assert files(run) == before
    done_anew = bignas(*command[:-1], "--name=new")
    assert_refused(done_anew, "^error: No space left on device")
    assert files(run) == before


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
    assert sizes == {"s.tflite": [12, 0], "s_int8.tflite": [12, 52]}  # of 64 images
    # Only work that succeeds is recorded.
    assert "int8" not in read(workdir / "run.convert.json")["command"]


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


def test_a_conversion_replaces_no_file_unasked(finished):
    workdir, _ = finished
    before = (workdir / "s.tflite").read_bytes()
    result = bignas("convert", f"--workdir={workdir}")
    assert_refused(result, "^error: the output exists already; set `overwrite`.*s.tflite$")
    assert (workdir / "s.tflite").read_bytes() == before


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


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MIDDLE = TINY.smallest().as_dict()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("select", f"--budget=mmacs:{SMALL / 2:.6f}"), "`budget` must be at least .* smallest"),
        (("select", "--budget=macs:1"), "`metric` must be one of mmacs, params_m.*'macs'"),
        (("select", f"--budget=mmacs:{BIG}", "--names=a,b"), "`names` must be 1 different ones"),
        (("extract",), "selected.json is missing; `bignas select` writes it"),
        (("extract", "--genotype=tiny", "--name=a"), "`genotype` must be .*Received: tiny"),
        (("extract", "--genotype=5", "--name=a"), "`genotype` must be .*Received: 5"),
        (("extract", "--genotype={}", "--name=a"), "has the genes resolution, .*missing"),
        (
            ("extract", f"--genotype={json.dumps(MIDDLE | {'resolution': 7})}", "--name=a"),
            "`resolution` of space 'tiny' must be one of 6, 8. Received: 7",
        ),
        (("extract", "--genotype=smallest"), "`genotype` and `name` must be given together"),
        (("extract", "--genotype=smallest", "--name=a", "--method=no"), "`method` must be one of"),
        (("extract", "--genotype=smallest", "--name=../a"), "`name` must be"),
        (("evaluate",), "children has no .keras files; `bignas extract` writes them"),
        (("convert",), "children has no .keras files; `bignas extract` writes them"),
        (("benchmark",), "has no .tflite files; `bignas convert` writes them"),
        (("report",), "selected.json is missing; `bignas select` writes it"),
        (SHORT, "was started with another (epochs|batch_size)"),
        ((*TRAIN, "--set=space=digits"), "was started with another space"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_lost(run, command, message):
    before = files(run)
    assert_refused(bignas(*command, f"--workdir={run}"), f"^error: .*{message}")
    after = files(run)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path.suffix in (".tmp", ".keras")]


def test_images_of_another_data_set_are_refused(run, tmp_path):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(1300):
            pixels = np.full((8, 8), number % 256, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.bmp")
    data = f"--data=folder:{tmp_path / 'images'}"
    result = bignas("select", f"--workdir={run}", f"--budget=mmacs:{BIG}", data)
    assert_refused(result, "^error: `data` must be the images of the run in .*folder:")
    assert_refused(bignas(*TRAIN, f"--workdir={run}", data), "was started with another classes")


def test_weights_of_another_space_are_no_start(run, tmp_path):
    other = (f"--workdir={tmp_path / 'other'}", "--set=space=digits", f"--init_from={run}")
    assert_refused(bignas(*TRAIN, *other), "^error: `init_from` must be .* space 'digits'")


def test_a_corrupt_checkpoint_is_refused_by_name(run):
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(RuntimeWarning, match="is damaged"):
        result = bignas("extract", f"--workdir={run}", "--genotype=smallest", "--name=a")
    assert_refused(result, "^error: All checkpoints in .* are damaged: step_")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        result = bignas(*TRAIN, f"--workdir={run}")
    assert_refused(result, "^error: All checkpoints in .* are damaged: step_")


def test_a_checkpoint_of_something_else_is_refused(run):
    for path in (run / "checkpoints").iterdir():
        arrays, _ = read_checkpoint(path)
        write_checkpoint(path, arrays, {"epoch": 3})
    for command in (TRAIN, ("select", "--budget=mmacs:1")):
        result = bignas(*command, f"--workdir={run}")
        assert_refused(result, "^error: Checkpoint .* must be that of a run")


def test_a_workdir_that_is_a_file_is_refused(run):
    (checkpoint, *_) = (run / "checkpoints").iterdir()
    for command in (("select", "--budget=mmacs:1"), ("extract",)):
        result = bignas(*command, f"--workdir={checkpoint}")
        assert_refused(result, "^error: `workdir` must be a run's folder. Received: .*safetensors$")


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
