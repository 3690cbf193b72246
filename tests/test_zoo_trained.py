"""Weights that come with the package, on a tiny supernet published as the real ones are."""

import importlib.util
import json
import re
import shutil
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from commands_fixture import (
    BIG,
    SMALL,
    TINY,
    WARNINGS,
    assert_refused,
    bignas,
    done,
    read,
    registered,
    train,
)

from bignas_tf.commands.run_folder import load_run
from bignas_tf.evaluation import prepared
from bignas_tf.search.results import read_selected
from bignas_tf.training.state import load_trained
from bignas_tf.zoo import presets as presets_module
from bignas_tf.zoo import trained

pytestmark = WARNINGS
MIDDLE = (SMALL + BIG) / 2
SCRIPT = Path(__file__).resolve().parents[1] / "zoo" / "publish_cifar.py"


@pytest.fixture(autouse=True, scope="module")
def tiny_by_name():
    yield from registered()


@pytest.fixture(scope="module")
def publish():
    spec = importlib.util.spec_from_file_location("publish_cifar", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = train(tmp_path_factory)
    budget = f"--budget=mmacs:{MIDDLE:.6f},{BIG:.6f}"
    done("select", f"--workdir={workdir}", budget, "--names=s,l", "--fine_rounds=0")
    return workdir


@pytest.fixture(scope="module")
def published(run, publish, tmp_path_factory):
    """A folder as `bignas_tf/zoo/files`, of the tiny supernet."""
    folder = tmp_path_factory.mktemp("files")
    loaded, data = load_run(types.SimpleNamespace(workdir=run, data=None))
    publish.write_supernet(loaded, folder / "tiny.safetensors")
    publish.write_front(loaded, data, run, folder / "front.safetensors")
    names = {"weights": "tiny.safetensors", "front": "front.safetensors"}
    entries = {what: publish.file_entry(folder / name) for what, name in names.items()}
    (folder / "supernets.json").write_text(json.dumps({"tiny": entries}))
    return folder


@pytest.fixture
def zoo(published, tmp_path, monkeypatch):
    files = shutil.copytree(published, tmp_path / "files")
    monkeypatch.setattr(trained, "FILES", files)
    trained._supernets.cache_clear()
    yield files
    trained._supernets.cache_clear()


def test_a_published_supernet_has_the_runs_weights_and_nothing_of_its_optimizer(run, zoo):
    found, expected = load_trained(trained.supernet_file("tiny")), load_trained(run)
    for path, array in expected.supernet.weight_arrays().items():
        np.testing.assert_array_equal(found.supernet.weight_arrays()[path], array, err_msg=path)
    assert (found.classes, found.step) == (expected.classes, expected.step)
    assert (zoo / "tiny.safetensors").stat().st_size < expected.path.stat().st_size * 0.7


@pytest.mark.parametrize(("name", "limit"), [("s", MIDDLE), ("l", BIG)])
def test_a_child_of_the_front_is_the_one_that_the_search_selected(run, zoo, tmp_path, name, limit):
    output = tmp_path / "children"
    done("extract", "--supernet=tiny", f"--budget=mmacs:{limit:.6f}", f"--output={output}")
    (path,) = output.glob("*.keras")
    (best,) = (entry for entry in read_selected(run / "select") if entry["name"] == name)
    described = read(path.with_suffix(".json"))
    assert described["genotype"] == best["genotype"]
    _, data = load_run(types.SimpleNamespace(workdir=run, data=None))
    child = keras.models.load_model(path, compile=False)
    logits = child.predict(prepared(data.held_out, described["resolution"]), verbose=0)
    assert (logits.argmax(-1) == data.held_out.labels).mean() == best["accuracy"]


def test_any_genotype_is_cut_and_calibrated_on_given_data(run, zoo, tmp_path):
    genotype = TINY.sample(1, seed=1)[0].as_dict()
    given = (f"--genotype={json.dumps(genotype)}", "--name=own")
    done("extract", "--supernet=tiny", "--data=digits", *given, f"--output={tmp_path}")
    done("extract", f"--workdir={run}", *given)
    found, expected = (
        keras.models.load_model(folder / "own.keras", compile=False)
        for folder in (tmp_path, run / "children")
    )
    for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--supernet=huge", "--budget=mmacs:4"],
            "`supernet` must be one of tiny. Received: 'h",
        ),
        (["--supernet=tiny"], "Either `budget` or `genotype` must be given with `supernet`"),
        (["--supernet=tiny", "--budget=mmacs:1e-9"], "`budget` must be at least"),
        (["--supernet=tiny", "--budget=macs:4"], "`metric` must be one of"),
        (["--supernet=tiny", "--budget=latency_ms:4"], "`budget` must be of MACs, parameters or"),
        (
            ["--supernet=tiny", "--budget=mmacs:4", "--data=digits"],
            "`data` must be left out with `budget`: .*Received: 'digits'",
        ),
        (
            ["--supernet=tiny", "--budget=mmacs:4", "--method=batch_average"],
            "`method` must be left out with `budget`: .*Received: 'batch_average'",
        ),
        (["--supernet=tiny", "--genotype=smallest", "--name=a"], "`data` must be given with `geno"),
        (["--supernet=tiny", "--workdir=x", "--budget=mmacs:4"], "Either `workdir` or `supernet`"),
        ([], "Either `workdir` or `supernet` must be given"),
        (["--workdir=x", "--budget=mmacs:4"], "`budget` must be left out without `supernet`"),
        (["--workdir=x", "--output=y"], "`output` must be left out without `supernet`.*'y'"),
    ],
)
def test_bad_input_is_refused_and_leaves_no_folder(zoo, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(bignas("extract", *arguments), message)
    assert not (tmp_path / "children").exists()


@pytest.fixture
def preset(run, publish, zoo, monkeypatch):
    """The name of the tiny run's child as a preset with weights, and its accuracy in the run."""
    if not (run / "evaluation.json").exists():
        done("extract", f"--workdir={run}")
        done("evaluate", f"--workdir={run}")
    child, weights = run / "children" / "s.keras", zoo / "bignastiny_s.digits.weights.h5"
    described = read(child.with_suffix(".json"))
    publish.write_child(child, described, weights)
    accuracy = read(run / "evaluation.json")["children"]["s"]
    entry = {"family": "tiny", **publish.preset_entry(described, weights, accuracy)}
    presets = {"bignastiny_s": entry, "untrained": {**entry, "weights": None}}
    monkeypatch.setattr(presets_module, "_presets", lambda: presets)
    presets_module._spec.cache_clear()
    yield "bignastiny_s", accuracy["top1"]
    presets_module._spec.cache_clear()


def test_a_preset_has_its_published_accuracy_by_name_and_as_a_file(preset, tmp_path):
    name, top1 = preset
    output = tmp_path / "a.tflite"
    done("convert", f"--model={name}", f"--output={output}", "--preprocessing=outside")
    described = read(output.with_suffix(".json"))
    labels = [str(digit) for digit in range(10)]
    assert (described["weights"], described["labels"]) == ("cifar10", labels)
    assert (described["image_size"], described["input_range"]) == (8, [-1, 1])
    assert described["folding"]["MUL"]["found"] == described["folding"]["MUL"]["explained"]
    said = done("evaluate", f"--model={output}", "--data=digits")
    assert f"{output}: {top1:.2%} (" in said
    said = done("evaluate", f"--model={name}", "--data=digits")
    assert f"{name}: {top1:.2%} (" in said
    said = done("benchmark", f"--model={name},{output}", "--rounds=1", "--runs=1")
    assert re.search(rf"^{name} .*\na.tflite ", said, re.MULTILINE)


def test_a_preset_that_nobody_has_trained_is_not_evaluated(preset, tmp_path):
    refused = bignas("evaluate", "--model=untrained", "--data=digits")
    assert_refused(refused, "a preset that somebody has trained .bignastiny_s.: this one has no w")
    done("convert", "--model=untrained", f"--output={tmp_path / 'a.tflite'}")
    assert read(tmp_path / "a.json")["weights"] is None
    refused = bignas("evaluate", f"--model={tmp_path / 'a.tflite'}", "--data=digits")
    assert_refused(refused, "the weights of preset untrained in it are random")
    refused = bignas("evaluate", "--model=unheard_of", "--data=digits")
    assert_refused(refused, "or a preset of the zoo with weights. Received: unheard_of")


def test_a_file_that_is_not_the_published_one_is_refused(zoo):
    path = zoo / "tiny.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} must have the SHA-256"):
        trained.supernet_file("tiny")
