import json
import os
import re
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from bignas_tf.data import Split
from bignas_tf.deploy import formats, tflite
from bignas_tf.deploy.file_evaluation import evaluate
from bignas_tf.deploy.formats import default_name, export
from bignas_tf.deploy.model_file import convert_model, load_model
from bignas_tf.deploy.preprocessing import in_range, placed
from bignas_tf.deploy.runner import Runner, open_model
from bignas_tf.deploy.schemes import Quantization
from bignas_tf.deploy.sidecar import FIGURES, read_sidecar
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
    beside = [] if format == "saved_model" else [f"{output.name}.json"]
    assert sorted(os.listdir(tmp_path)) == sorted([output.name, *beside])
    described = json.loads(done.sidecar.read_text())
    assert set(described) - FIGURES == {"macs", "labels"}
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
        assert os.listdir(tmp_path) == [output.name]
        assert open_model(output).metadata.keys() == FIGURES & described.keys()


def test_labels_that_are_null_in_a_json_are_not_compared_with_the_classes():
    # As of a preset of the zoo whose classes have no names there.
    images = Split(np.arange(3, dtype=np.int32), np.zeros((3, 2, 2, 1), np.uint8))
    source = types.SimpleNamespace(classes=("a", "b", "c"), test=images)
    runner = Runner(Path("x"), (2, 2, 1), {"labels": None}, lambda x: np.eye(3)[[0] * len(x)])
    assert evaluate(runner, source).top1 == pytest.approx(1 / 3)


@pytest.fixture
def exported_twice(model, photographs, tmp_path, converted_before):
    """A child, its JSON, and a TFLite file with figures in the same JSON."""
    model.save(tmp_path / "s.keras")
    described = {"macs": 7, "scores": "logits"}
    (tmp_path / "s.json").write_text(json.dumps(described))
    convert(model, tmp_path / "s.tflite", verification_images=photographs, metadata=described)
    return tmp_path


def test_no_export_is_described_by_the_figures_of_another(exported_twice, monkeypatch):
    of_tflite = json.loads((exported_twice / "s.json").read_text())
    assert {"quantization", "operators", "delegate"} < of_tflite.keys()
    assert (of_tflite["scores"], of_tflite["output"]["dtype"]) == ("logits", "float32")
    assert set(of_tflite) - FIGURES == {"macs", "scores"}
    for output, format in (("s", "saved_model"), ("a.keras", "keras")):
        done = convert_model(exported_twice / "s.keras", exported_twice / output, format=format)
        described = json.loads(done.sidecar.read_text())
        assert (described["macs"], described["format"]) == (7, format)
        assert described["sha256"] == done.sha256 != of_tflite["sha256"]
        assert not {"quantization", "operators", "delegate", "input", "output"} & described.keys()
    assert json.loads((exported_twice / "s.json").read_text()) == of_tflite
    assert open_model(exported_twice / "s.tflite").metadata == of_tflite
    for name in ("s.keras", "s"):
        assert open_model(exported_twice / name).metadata["macs"] == 7
        assert "quantization" not in open_model(exported_twice / name).metadata
    # Whoever asks for nothing but the model's words loses nothing by replacing a file.
    (exported_twice / "s.tflite").unlink()
    monkeypatch.setattr(tflite, "keras_outputs", None)
    with pytest.raises(TypeError):  # at the work, not before
        convert_model(exported_twice / "s.keras", exported_twice / "s.tflite")


def test_a_file_without_a_json_is_not_described_by_that_of_another(exported_twice):
    (exported_twice / "s.onnx").touch()
    assert read_sidecar(exported_twice / "s.onnx") == {}
    assert read_sidecar(exported_twice / "s") == {}


def test_a_saved_model_is_replaced_with_its_json_or_not_at_all(
    model, make_model, photographs, tmp_path, monkeypatch
):
    images = {"verification_images": photographs}
    output = tmp_path / "s"
    first = export(model, output, "saved_model", **images)
    rename = os.replace

    def interrupted(source, target):
        if target == output:
            monkeypatch.setattr(os, "replace", rename)
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(make_model(seed=1), output, "saved_model", **images, overwrite=True)
    assert os.listdir(tmp_path) == ["s"]
    assert open_model(output).metadata["sha256"] == first.sha256
    # As after a kill between the two renames.
    rename(output, tmp_path / ".s.before")
    with pytest.raises(FileExistsError, match="exists already"):
        export(make_model(seed=1), output, "saved_model", **images)
    assert open_model(output).metadata["sha256"] == first.sha256


def test_the_variants_of_a_child_have_names_of_their_own():
    int8, qat = Quantization.INT8, Quantization.QAT_INT8
    for name, *variant in (
        ("s.tflite", "tflite"),
        ("s.tflite", "tflite", Quantization.FLOAT32, "float32", "outside"),
        ("s_inside.tflite", "tflite", Quantization.FLOAT32, None, "inside"),
        ("s_int8.tflite", "tflite", int8, "int8"),
        ("s_int8_uint8.tflite", "tflite", int8, "uint8", "outside"),
        ("s_int8_uint8_inside.tflite", "tflite", int8, "uint8", "inside"),
        ("s_qat_int8_float32.tflite", "tflite", qat, "float32"),
        ("s.onnx", "onnx"),
        ("s_inside_saved_model", "saved_model", Quantization.FLOAT32, None, "inside"),
    ):
        assert default_name("s", *variant) == name


def test_an_export_that_computes_something_else_is_not_kept(
    model, make_model, photographs, tmp_path, monkeypatch
):
    other = make_model(seed=1)
    monkeypatch.setitem(
        formats._WRITTEN, "keras", formats._Format(".keras", lambda _, path: other.save(path), {})
    )
    with pytest.raises(VerificationError, match="the keras export"):
        export(model, tmp_path / "a.keras", "keras", verification_images=photographs)
    assert not os.listdir(tmp_path)


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


def test_a_folder_that_is_no_saved_model_is_not_replaced(model, photographs, tmp_path):
    (tmp_path / "mine").mkdir()
    images = {"verification_images": photographs}
    with pytest.raises(FileExistsError, match="no SavedModel"):
        export(model, tmp_path / "mine", "saved_model", **images, overwrite=True)
    assert os.listdir(tmp_path) == ["mine"]


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
    inputs = keras.Input((24, 24, 3))
    each = keras.layers.Rescaling([1 / 58] * 3, [-2.1, -2.0, -1.8])(inputs)
    with pytest.raises(ValueError, match=r"begins with no Rescaling layer to \[-1, 1\] or"):
        placed(keras.Model(inputs, model(each)), {"input_range": [0, 255]}, "outside")
    with pytest.raises(ValueError, match="`preprocessing` must be one of inside, outside"):
        placed(model, {}, "both")


@pytest.mark.parametrize("described", [True, False])
def test_the_json_of_a_model_is_never_made_to_describe_another_input_range(
    described, model, tmp_path
):
    model.save(tmp_path / "child.keras")
    if described:
        (tmp_path / "child.json").write_text('{"macs": 7}')
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match="child.json describes the model"):
        convert_model(
            tmp_path / "child.keras",
            tmp_path / "child.tflite",
            preprocessing="inside",
            overwrite=True,
        )
    assert sorted(os.listdir(tmp_path)) == before
    assert load_model(tmp_path / "child.keras")[1] == ({"macs": 7} if described else {})


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
