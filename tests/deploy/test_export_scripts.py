import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bignas_tf.deploy.model_file import convert_model

# TensorFlow 2.21's variables under NumPy 2.4, when Keras saves a model.
saves_a_model = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_benchmark_host_writes_the_figures_it_prints(script, float_file, tmp_path):
    path = tmp_path / "latency.csv"
    files = f"--model={float_file},{float_file}"
    done = script("benchmark_host", files, "--runs=5", "--seconds=0", f"--csv={path}")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 2
    for row in rows:
        assert float(row["p95_ms"]) >= float(row["median_ms"]) > 0
        assert (row["threads"], row["rounds"], row["runs"]) == ("1", "6", "30")
        assert f"{float(row['median_ms']):.3f}" in done.stdout


def test_benchmark_host_profiles(script, float_file, tmp_path):
    folder = tmp_path / "profiles"
    done = script("benchmark_host", f"--model={float_file}", "--rounds=1", f"--profile={folder}")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / "model.profile.csv").read_text().splitlines()))
    assert any("Conv" in row["kind"] for row in rows)
    assert f"model.tflite: {len(rows)} operators" in done.stdout


@saves_a_model
def test_convert_tflite_keeps_what_the_json_beside_the_model_says(script, model, tmp_path):
    model.save(tmp_path / "child.keras")
    (tmp_path / "child.json").write_text(json.dumps({"macs": 123, "input_range": [0, 1]}))
    output = tmp_path / "child.tflite"
    done = script("convert_tflite", f"--model={tmp_path / 'child.keras'}", f"--output={output}")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{output}: float32" in done.stdout
    described = json.loads((tmp_path / "child.json").read_text())
    assert (described["macs"], described["input_range"]) == (123, [0, 1])
    assert described["bytes"] == output.stat().st_size


@saves_a_model
def test_int8_is_calibrated_and_verified_on_different_images_of_the_folder(
    make_model, tmp_path, monkeypatch
):
    from bignas_tf.deploy import model_file

    make_model((8, 8, 1)).save(tmp_path / "child.keras")
    for index in range(8):
        Image.new("L", (8, 8), index * 30).save(tmp_path / f"{index}.png")
    received = {}
    monkeypatch.setattr(model_file, "convert", lambda *_, **arguments: received.update(arguments))
    convert_model(
        tmp_path / "child.keras",
        tmp_path / "a.tflite",
        quantization="int8",
        images=tmp_path,
        input_range=("0", "255"),
    )
    np.testing.assert_allclose(received["verification_images"][:, 0, 0, 0], [0, 120])
    np.testing.assert_allclose(
        received["calibration_images"][:, 0, 0, 0], [30, 60, 90, 150, 180, 210]
    )
    assert received["metadata"]["input_range"] == [0, 255]


def converted_metadata(monkeypatch, model):
    from bignas_tf.deploy import model_file

    received = {}
    monkeypatch.setattr(model_file, "convert", lambda *_, **arguments: received.update(arguments))
    convert_model(model, "a.tflite")
    return received["metadata"], received["verification_images"]


def test_a_zoo_model_is_checked_on_bytes_and_its_json_says_so(make_model, monkeypatch):
    from bignas_tf import zoo
    from bignas_tf.zoo import models

    monkeypatch.setattr(models, "build_model", lambda *_, **__: make_model((32, 32, 3)))
    described, images = converted_metadata(monkeypatch, "BigNASModel_S")
    preset = zoo.get_preset("bignasmodel_s")
    assert described["input_range"] == preset["input_range"] == [0, 255]
    assert (described["preset"], described["weights"]) == ("bignasmodel_s", None)
    assert (described["macs"], described["spec"]) == (preset["macs"], preset["spec"])
    assert images.min() >= 0 and images.max() > 100


@saves_a_model
@pytest.mark.parametrize(
    ("scale", "offset", "expected"),
    [
        (1 / 127.5, -1, [0, 255]),
        (1 / 255, 0, [0, 255]),
        (2, -1, [-1, 1]),
        ([1 / 58] * 3, [-2.1, -2.0, -1.8], [-1, 1]),  # no range, but one for each channel
        (None, None, [-1, 1]),
    ],
)
def test_a_leading_rescaling_tells_the_input_range_unless_the_json_does(
    scale, offset, expected, make_model, tmp_path, monkeypatch
):
    import keras

    model = make_model((8, 8, 3))
    if scale:
        inputs = keras.Input((8, 8, 3))
        rescaled = keras.layers.Rescaling(scale, offset)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(rescaled)))
    path = tmp_path / "child.keras"
    model.save(path)
    assert converted_metadata(monkeypatch, path)[0]["input_range"] == expected
    path.with_suffix(".json").write_text(json.dumps({"input_range": [0, 1]}))
    assert converted_metadata(monkeypatch, path)[0]["input_range"] == [0, 1]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("benchmark_host", ["--model={text}"], "not a TFLite file"),
        ("benchmark_host", ["--model={text}", "--runs=0"], "--runs=0"),
        ("benchmark_host", ["--model={tflite}", "--spread=0"], "`spread` must be between 0 and 1"),
        ("benchmark_host", ["--model={tflite}", "--profile={text}"], "`profile` must be a folder"),
        ("benchmark_host", ["--model={tflite}", "--csv=/nowhere/a.csv"], "folder does not exist"),
        ("benchmark_host", [], "--model"),
        (
            "convert_tflite",
            ["--model={text}", "--output={out}"],
            "a .keras file or a model of the zoo",
        ),
        ("convert_tflite", ["--model=unheard_of", "--output={out}"], "or one of bignascifar_s, "),
        ("convert_tflite", ["--model={keras}", "--output={out}"], "is not a Keras file"),
        ("convert_tflite", ["--model={keras}", "--output={tflite}"], "exists already"),
        (
            "convert_tflite",
            ["--model=a.keras", "--output={out}", "more"],
            "unknown argument 'more'",
        ),
        (
            "convert_tflite",
            ["--model=a.keras", "--output={out}", "--quantization=qat_int8"],
            "--quantization=qat_int8: value should be one of <float32|",
        ),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(
    name, flags, message, script, float_file, tmp_path
):
    files = {"tflite": float_file, "out": tmp_path / "out.tflite"}
    for suffix in ("text", "keras"):
        files[suffix] = tmp_path / f"file.{suffix}"
        files[suffix].write_text("some words")
    done = script(name, *(flag.format(**files) for flag in flags))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not files["out"].exists()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [("KeyboardInterrupt", 130, "interrupted"), ("RuntimeError('it died')", 1, "it died")],
)
def test_what_stops_a_script_ends_in_one_line(error, status, line):
    code = "from bignas_tf.deploy.script import run_script\ndef main(): raise {}\nrun_script(main)"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code.format(error)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (status, f"error: {line}\n")


@pytest.mark.parametrize("name", ["benchmark_host", "convert_tflite"])
def test_help_shows_an_example(name, script):
    done = script(name, "--help")
    assert done.returncode == 0
    assert f"python export/{name}.py --model=child" in done.stdout
