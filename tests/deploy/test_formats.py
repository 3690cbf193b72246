import json
import os
import re

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from bignas_tf.deploy import formats
from bignas_tf.deploy.formats import default_name, export
from bignas_tf.deploy.model_file import convert_model, load_model
from bignas_tf.deploy.preprocessing import in_range, placed
from bignas_tf.deploy.runner import open_model
from bignas_tf.deploy.schemes import Quantization
from bignas_tf.deploy.tflite import convert
from bignas_tf.deploy.verification import VerificationError

# TensorFlow 2.21's variables under NumPy 2.4, when Keras saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("format", ["saved_model", "onnx", "keras"])
def test_every_format_computes_what_keras_computes(format, model, photographs, tmp_path):
    output = tmp_path / default_name("model", format, Quantization.FLOAT32)
    done = export(
        model,
        output,
        format,
        verification_images=photographs,
        metadata={"macs": 7},
        labels="zero one two three four five six seven eight nine".split(),
    )
    assert sorted(os.listdir(tmp_path)) == sorted([output.name, f"{output.name}.json"])
    described = json.loads(done.sidecar.read_text())
    assert described["bytes"] == done.bytes > 1000
    assert (described["macs"], described["format"], described["labels"][9]) == (7, format, "nine")
    assert described["verification"]["agreement"] == 1.0
    runner = open_model(output)
    assert (runner.shape, runner.metadata) == ((24, 24, 3), described)
    expected = keras.ops.convert_to_numpy(model(photographs, training=False))
    np.testing.assert_allclose(runner.predict(photographs), expected, rtol=1e-4, atol=1e-5)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(output)
        assert [node.name for node in session.get_inputs()] == [described["input_name"]]
        assert [node.name for node in session.get_outputs()] == [described["output_name"]]
    if format == "saved_model":
        (output / "assets" / "more").touch()
        again = export(model, output, format, verification_images=photographs, overwrite=True)
        assert again.sidecar == done.sidecar
        assert not (output / "assets" / "more").exists()


def test_an_export_that_computes_something_else_is_not_kept(
    model, make_model, photographs, tmp_path, monkeypatch
):
    other = make_model(seed=1)
    written = formats._WRITTEN["keras"]
    monkeypatch.setitem(
        formats._WRITTEN, "keras", formats._Format(".keras", lambda _, path: other.save(path), {})
    )
    with pytest.raises(VerificationError, match="the keras export"):
        export(model, tmp_path / "a.keras", "keras", verification_images=photographs)
    assert not os.listdir(tmp_path)
    assert written.suffix == ".keras"


@pytest.mark.parametrize(
    ("output", "format", "error", "message"),
    [
        ("a.onnx", "keras", ValueError, r"`output` must be a name ending in .keras"),
        ("a.pb", "saved_model", ValueError, "without a suffix"),
        ("mine", "saved_model", FileExistsError, "exists already"),
        ("a.keras", "tflite", ValueError, "`format` must be one of saved_model, onnx, keras"),
        ("no/a.keras", "keras", FileNotFoundError, "folder does not exist"),
    ],
)
def test_an_output_of_the_wrong_kind_is_refused(
    output, format, error, message, model, photographs, tmp_path, monkeypatch
):
    monkeypatch.setattr(formats, "keras_outputs", None)  # any work would fail
    (tmp_path / "mine").mkdir()
    with pytest.raises(error, match=message):
        export(model, tmp_path / output, format, verification_images=photographs)
    with pytest.raises(FileExistsError, match="no SavedModel"):
        export(
            model,
            tmp_path / "mine",
            "saved_model",
            verification_images=photographs,
            overwrite=True,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization": "int8"}, "`quantization` must be float32 for format onnx"),
        ({"io": "int8"}, "`io` must be left out"),
        ({"format": "tflite", "io": "uint8"}, "`io` must be one of float32 for this quantization"),
        ({"format": "pickle"}, "`format` must be one of"),
    ],
)
def test_a_quantization_that_a_format_has_not_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        convert_model("a.keras", tmp_path / "a.onnx", **{"format": "onnx", **changes})


def test_preprocessing_inside_takes_the_bytes_of_a_picture_as_they_are(
    model, photographs, tmp_path
):
    inside, metadata = placed(model, {}, "inside")
    assert metadata == {"input_range": [0, 255], "preprocessing": "inside"}
    pixels = in_range(photographs, (0, 255))
    np.testing.assert_array_equal(pixels, np.round(pixels))
    expected = keras.ops.convert_to_numpy(model(pixels / 127.5 - 1, training=False))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(inside(pixels, training=False), expected, atol=1e-5 * scale)
    # Black and white are among the pictures, as they are among any few hundred photographs.
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    path = tmp_path / "model.tflite"
    done = convert(
        inside,
        path,
        quantization="int8",
        io="uint8",
        calibration_images=pixels,
        verification_images=pixels,
        metadata=metadata,
    )
    assert (done.input.dtype, done.input.zero_point) == ("uint8", 0)
    assert done.input.scale == pytest.approx(1, abs=1e-6)
    assert json.loads(done.sidecar.read_text())["preprocessing"] == "inside"
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    raw = pixels.astype(np.uint8)
    found = []
    for image in raw:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        stored = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        found.append((stored.astype(float) - done.output.zero_point) * done.output.scale)
    reference = keras.ops.convert_to_numpy(inside(pixels, training=False))
    assert np.abs(found - reference).max() < 0.1 * scale


def test_preprocessing_goes_in_and_out_again(model, photographs):
    inside, metadata = placed(model, {"input_range": [-1, 1], "macs": 7}, "inside")
    same, _ = placed(inside, metadata, "inside")
    assert same is inside
    outside, metadata = placed(inside, metadata, "outside")
    assert metadata == {"input_range": [-1, 1], "preprocessing": "outside", "macs": 7}
    np.testing.assert_allclose(outside(photographs), model(photographs), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="begins with no Rescaling"):
        placed(model, {"input_range": [0, 255]}, "outside")
    with pytest.raises(ValueError, match="`preprocessing` must be one of inside, outside"):
        placed(model, {}, "both")


def test_the_json_of_a_model_is_never_made_to_describe_another_input_range(model, tmp_path):
    model.save(tmp_path / "child.keras")
    (tmp_path / "child.json").write_text('{"macs": 7}')
    with pytest.raises(ValueError, match="child.json describes the model"):
        convert_model(
            tmp_path / "child.keras",
            tmp_path / "child.tflite",
            preprocessing="inside",
            overwrite=True,
        )
    assert sorted(os.listdir(tmp_path)) == ["child.json", "child.keras"]
    assert load_model(tmp_path / "child.keras")[1] == {"macs": 7}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.onnx", r"must be a valid ONNX file \(.*Received: .*a.onnx"),
        ("missing.onnx", "does not exist"),
        ("folder", "must be a SavedModel with a signature 'serve'"),
        ("a.txt", "`model` must be a .keras file or a .tflite file, an .onnx file or"),
    ],
)
def test_what_is_no_model_is_not_opened(name, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.onnx").write_text("nonsense")
    (tmp_path / "a.txt").write_text("nonsense")
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        open_model(tmp_path / name)
