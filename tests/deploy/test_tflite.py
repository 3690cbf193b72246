import functools
import hashlib
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from bignas_tf.deploy import interpreter, tflite
from bignas_tf.deploy.formats import export
from bignas_tf.deploy.runner import open_model
from bignas_tf.deploy.tflite import (
    ConversionError,
    TFLiteFileError,
    VerificationError,
    convert,
    load_interpreter,
    predict,
)
from bignas_tf.deploy.verification import Tolerance, compare


def test_the_float32_file_computes_what_keras_computes(model, float_file, photographs):
    interpreter = Interpreter(model_path=str(float_file))
    interpreter.allocate_tensors()
    expected = keras.ops.convert_to_numpy(model(photographs, training=False))
    for image, scores in zip(photographs, expected, strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        np.testing.assert_allclose(found, scores, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 0.01  # the images do differ


@pytest.mark.parametrize("quantization", ["float16", "dynamic", "int8", "int8_float_io", "int16x8"])
def test_every_quantization_converts_to_a_file_that_its_sidecar_describes(
    quantization, model, photographs, tmp_path, capfd
):
    path = tmp_path / "model.tflite"
    conversion = convert(
        model,
        path,
        quantization=quantization,
        calibration_images=photographs[::2],
        verification_images=photographs[1::2],
        metadata={"macs": 7, "input_range": (-1, 1)},
        labels="zero one two three four five six seven eight nine".split(),
    )
    assert capfd.readouterr() == ("", "")
    sidecar = json.loads((tmp_path / "model.json").read_text())
    assert sidecar["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sidecar["bytes"] == path.stat().st_size == conversion.bytes
    assert sidecar["quantization"] == quantization
    assert (sidecar["macs"], sidecar["input_range"]) == (7, [-1, 1])
    assert sidecar["labels"][9] == "nine"
    assert sidecar["verification"]["images"] == 12
    delegate = sidecar["delegate"]
    assert delegate["parts"] == conversion.graph.delegate_parts
    # XNNPACK has no kernels for 16 bits, and says nothing of it by itself.
    assert (delegate["parts"] == 0) == (quantization == "int16x8") == bool(conversion.warning())
    assert (delegate["outside"] == sidecar["operators"]) == (quantization == "int16x8")
    assert sidecar["input"]["shape"] == [1, 24, 24, 3]
    assert sidecar["input"]["dtype"] == ("int8" if quantization == "int8" else "float32")
    assert (sidecar["input"]["scale"] > 0) == (quantization == "int8")
    assert quantization in conversion.summary()
    assert conversion.verification.telling
    expected = keras.ops.convert_to_numpy(model(photographs, training=False))
    difference = np.abs(predict(path, photographs) - expected).max()
    assert 0 < difference < 0.1 * np.abs(expected).max()
    assert sorted(os.listdir(tmp_path)) == ["model.json", "model.tflite"]
    assert os.stat(path).st_mode == os.stat(_touched(tmp_path / "plain")).st_mode


def _touched(path):
    path.touch()
    return path


@pytest.mark.parametrize("activation", ["swish", "hard_swish"])
def test_hard_swish_in_int8_falls_out_of_xnnpack_and_swish_does_not(
    activation, photographs, tmp_path
):
    layers = keras.layers
    convolutions = [
        layer
        for seed in range(2)
        for layer in (
            layers.Conv2D(8, 3, kernel_initializer=keras.initializers.GlorotUniform(seed)),
            layers.Activation(activation),
        )
    ]
    model = keras.Sequential([keras.Input((24, 24, 3)), *convolutions, layers.Flatten()])
    done = convert(
        model,
        tmp_path / "model.tflite",
        quantization="int8",
        calibration_images=photographs,
        verification_images=photographs,
    )
    outside = {"HARD_SWISH": 2} if activation == "hard_swish" else {}
    parts = 1 + sum(outside.values())
    assert (done.graph.outside, done.graph.delegate_parts) == (outside, parts)
    assert json.loads(done.sidecar.read_text())["delegate"]["outside"] == outside


@pytest.mark.parametrize(("quantization", "bytes_per_weight"), [("float16", 2), ("int8", 1)])
def test_a_file_is_as_big_as_its_type_of_weights(
    quantization, bytes_per_weight, photographs, tmp_path
):
    layers = [keras.layers.Flatten(), keras.layers.Dense(40)]
    wide = keras.Sequential([keras.Input((24, 24, 3)), *layers])
    conversion = convert(
        wide,
        tmp_path / "model.tflite",
        quantization=quantization,
        calibration_images=photographs,
        verification_images=photographs,
    )
    weights = 24 * 24 * 3 * 40
    assert 0 < conversion.bytes - bytes_per_weight * weights < 0.1 * weights


def test_nan_weights_leave_no_file(make_model, photographs, tmp_path):
    broken = make_model()
    broken.layers[-1].bias.assign(np.full(10, np.nan))
    with pytest.raises(VerificationError, match="Keras model itself gives NaN"):
        convert(broken, tmp_path / "model.tflite", verification_images=photographs)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda scores: scores * np.nan, "the TFLite file gives NaN"),
        (lambda scores: scores + 1e-3 * np.abs(scores).max(), "largest difference"),
        (lambda scores: scores[:, :5], "shape"),
    ],
)
def test_a_file_that_computes_something_else_is_not_kept(
    wrong, message, make_model, photographs, tmp_path, monkeypatch
):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the one before")
    monkeypatch.setattr(tflite, "flatbuffer", lambda *arguments: b"new")
    monkeypatch.setattr(tflite, "require_survival", lambda path: None)
    monkeypatch.setattr(tflite, "load_interpreter", lambda path: None)
    monkeypatch.setattr(tflite, "input_and_output", lambda interpreter: (None, None))
    model = make_model()
    monkeypatch.setattr(
        tflite, "predict", lambda _, images: wrong(np.asarray(model(images, training=False)))
    )
    with pytest.raises(VerificationError, match=message):
        convert(model, path, verification_images=photographs, overwrite=True)
    assert os.listdir(tmp_path) == ["model.tflite"]
    assert path.read_bytes() == b"the one before"


@pytest.mark.parametrize(
    ("trial", "seconds", "message"),
    [
        ("import os; os.abort()", 60, "ends with status -6 on the file"),
        ("import time; time.sleep(600)", 0.5, "does not get through the file in 0.5 s"),
        ("import sys; sys.exit('no such op')", 60, r"cannot run the file \(no such op\)"),
    ],
)
def test_a_file_that_litert_does_not_survive_is_refused_before_it_is_loaded(
    trial, seconds, message, float_file, monkeypatch
):
    monkeypatch.setattr(interpreter, "_TRIAL", trial)
    survival = functools.partial(interpreter.require_survival, seconds=seconds)
    monkeypatch.setattr(interpreter, "require_survival", survival)
    monkeypatch.setattr(interpreter, "load_interpreter", None)  # it would end these tests
    with pytest.raises(TFLiteFileError, match=f"LiteRT {message}.*Received: {float_file}"):
        open_model(float_file)


def test_a_file_that_kills_litert_is_not_kept(
    make_model, photographs, tmp_path, monkeypatch, converted_before
):
    monkeypatch.setattr(interpreter, "_TRIAL", "import os; os.write(2, b'double free'); os.abort()")
    with pytest.raises(TFLiteFileError, match=r"status -6 on the file \(double free\)"):
        convert(make_model(), tmp_path / "model.tflite", verification_images=photographs[:2])
    assert not os.listdir(tmp_path)


def test_an_existing_output_is_replaced_only_on_request(
    model, photographs, tmp_path, monkeypatch, converted_before
):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(tflite, "keras_outputs", None)  # any work would fail
        with pytest.raises(FileExistsError, match="overwrite"):
            convert(model, path, verification_images=photographs)
    assert path.read_bytes() == b"old"
    convert(model, path, verification_images=photographs, overwrite=True)
    assert path.read_bytes()[4:8] == b"TFL3"


def test_a_json_beside_the_output_is_extended_but_never_loses_anything(
    model, photographs, tmp_path, converted_before
):
    sidecar = tmp_path / "model.json"
    described = {"spec": {"blocks": [1, 2]}, "macs": 5}
    sidecar.write_text(json.dumps(described))
    arguments = {"verification_images": photographs[:2]}
    with pytest.raises(FileExistsError, match="model.json"):
        convert(model, tmp_path / "model.tflite", metadata={"macs": 5}, **arguments)
    assert json.loads(sidecar.read_text()) == described
    convert(model, tmp_path / "model.tflite", metadata=described, **arguments)
    assert json.loads(sidecar.read_text()).items() > described.items()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"quantization": "int4"}, ValueError, "int16x8, qat_int8. Received: 'int4'"),
        ({"quantization": "int8"}, ValueError, "`calibration_images`"),
        ({"verification_images": np.zeros((0, 24, 24, 3))}, ValueError, "`verification_images`"),
        ({"verification_images": np.zeros((2, 32, 32, 3))}, ValueError, r"\(24, 24, 3\)"),
        ({"verification_images": np.zeros((2, 24, 24, 3), "uint8")}, ValueError, "uint8"),
        ({"verification_images": np.full((2, 24, 24, 3), np.nan)}, ValueError, "finite"),
        ({"labels": ["one"]}, ValueError, "`labels` must be 10 names"),
        ({"metadata": {"space": object()}}, ValueError, "JSON-serializable"),
        ({"output": "model.bin"}, ValueError, r"\.tflite"),
        ({"output": "missing/model.tflite"}, FileNotFoundError, "folder does not exist"),
        ({"output": "file/model.tflite"}, NotADirectoryError, "cannot be written to"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    changes, error, message, model, photographs, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tflite, "keras_outputs", None)
    arguments = {"output": "model.tflite", "verification_images": photographs, **changes}
    output = tmp_path / arguments.pop("output")
    with pytest.raises(error, match=message):
        convert(model, output, **arguments)
    assert os.listdir(tmp_path) == ["file"]


def test_a_model_with_a_free_image_size_is_refused(tmp_path, photographs):
    inputs = keras.Input((None, None, 3))
    free = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ValueError, match="static"):
        convert(free, tmp_path / "model.tflite", verification_images=photographs)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_that_computes_in_half_precision_is_refused(policy, photographs, tmp_path):
    inputs = keras.Input((24, 24, 3))
    half = keras.layers.Conv2D(4, 3, dtype=policy)(inputs)
    scores = keras.layers.GlobalAveragePooling2D()(half)
    arguments = {"verification_images": photographs}
    with pytest.raises(ValueError, match=f"in float32.*in {policy.removeprefix('mixed_')}$"):
        convert(keras.Model(inputs, scores), tmp_path / "model.tflite", **arguments)


def test_a_model_of_tf_keras_is_refused_without_a_converter_of_its_own(photographs, tmp_path):
    tf_keras = pytest.importorskip("tf_keras")
    inputs = tf_keras.Input((24, 24, 3))
    model = tf_keras.Model(inputs, tf_keras.layers.GlobalAveragePooling2D()(inputs))
    arguments = {"verification_images": photographs}
    with pytest.raises(ValueError, match="of Keras 3. Received: tf_keras"):
        convert(model, tmp_path / "model.tflite", **arguments)
    with pytest.raises(ValueError, match="of Keras 3. Received: tf_keras"):
        export(model, tmp_path / "model.onnx", "onnx", **arguments)


def test_an_operator_that_tflite_lacks_is_named(tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 1)).astype("float32")
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.ops.qr(keras.ops.squeeze(inputs, -1))[0])
    with pytest.raises(ConversionError, match="TF Select ops: Qr"):
        convert(model, tmp_path / "model.tflite", verification_images=images)


def test_what_the_converter_said_is_shown_when_it_fails(
    model, photographs, tmp_path, monkeypatch, capfd
):
    def fail(*arguments, **options):
        os.write(2, b"native words")
        raise ValueError("no such op\nand a long trace")

    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_concrete_functions", fail)
    with pytest.raises(ConversionError, match="cannot convert `model`: no such op$"):
        convert(model, tmp_path / "model.tflite", verification_images=photographs)
    assert "native words" in capfd.readouterr().err
    assert not os.listdir(tmp_path)


def test_ties_of_the_keras_model_do_not_count_as_disagreement():
    reference = np.array([[1.0, 0.99, 0.0], [1.0, 0.0, 0.5]])
    swapped = np.array([[0.9, 1.0, 0.0], [1.0, 0.0, 0.5]])
    figures = compare(reference, swapped, Tolerance(1.0, 1.0, agreement=1.0, tie=0.05))
    assert (figures.agreement, figures.clear_disagreements) == (0.5, 0)
    with pytest.raises(VerificationError, match="1 of 2 images, 0 may"):
        compare(reference, swapped, Tolerance(1.0, 1.0, agreement=0.9, tie=0.001))


def test_a_file_that_ignores_its_input_fails_however_tolerant_the_limits():
    random = np.random.default_rng(0)
    reference = np.array([5.0, 0, 0]) + random.normal(0, 0.5, (20, 3))
    constant = np.broadcast_to(reference.mean(axis=0), reference.shape)
    tolerance = Tolerance(1.0, 1.0, agreement=0.5, tie=0.0)
    for guess in (constant, np.broadcast_to(np.median(reference, axis=0), reference.shape)):
        with pytest.raises(VerificationError, match="hardly depend on the image"):
            compare(reference, guess, tolerance)
    with pytest.raises(VerificationError, match="as much as one image differs from another"):
        compare(reference, reference[::-1], tolerance)
    assert compare(reference, reference + 0.1, tolerance).telling
    assert not compare(constant, constant + 0.1, tolerance).telling


def test_one_image_in_ten_may_disagree_at_an_agreement_of_nine_tenths():
    reference = np.eye(10)
    wrong = np.roll(reference, 1, axis=0)
    tolerance = Tolerance(1.0, 1.0, agreement=0.9, tie=0.0)
    assert compare(reference, np.r_[reference[:9], wrong[9:]], tolerance).clear_disagreements == 1
    with pytest.raises(VerificationError, match="2 of 10 images, 1 may"):
        compare(reference, np.r_[reference[:8], wrong[8:]], tolerance)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such"),
        (b"", "empty"),
        (b"PK\x03\x04 a zip file", "not a TFLite file"),
        (b"\x1c\0\0\0TFL3 and then nonsense", "cannot run"),
    ],
)
def test_what_is_not_a_tflite_file_is_refused(content, message, tmp_path):
    path = tmp_path / "model.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TFLiteFileError, match=f"{message}.*Received: {path}"):
        load_interpreter(path)
