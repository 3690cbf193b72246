"""The converter's way in: constants instead of variables."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from random_models import random_model

from bignas_tf.blocks import ConvBlock, HeadBlock, MBConvBlock, SqueezeExcitation
from bignas_tf.deploy.conversion.converter import flatbuffer, through_constants
from bignas_tf.deploy.interpreter import load_interpreter, predict
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.spec import NetworkSpec

SE = SqueezeExcitation()
BLOCKS = {
    "stem": ConvBlock(name="block", channels=8, strides=2),
    "residual": MBConvBlock(name="block", channels=8, kernel_size=5, expand_ratio=2, se=SE),
    "projected": MBConvBlock(
        name="block", channels=12, strides=2, expand_ratio=3, shortcut="projection"
    ),
    "unexpanded": MBConvBlock(name="block", channels=4, expand_ratio=1, activation="hard_swish"),
    "head": HeadBlock(name="block", channels=16, dropout=0.5),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_file_computes_what_keras_does(kind, tmp_path):
    spec = NetworkSpec((7, 7, 8), (BLOCKS[kind],), 5)
    model = random_model(spec)
    data = flatbuffer(model, SCHEMES[Quantization.FLOAT32])
    path = tmp_path / "block.tflite"
    path.write_bytes(data)
    images = np.random.default_rng(0).normal(size=(3, *spec.input_shape)).astype("float32")
    expected = model.predict_on_batch(images)
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.01 * scale  # it depends on the image
    found = predict(load_interpreter(path), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("float32", "int16x8")]


@pytest.mark.parametrize("quantization", ["int8", *SLOW])
def test_a_file_has_the_operators_and_outputs_of_one_made_by_way_of_a_saved_model(
    quantization, tmp_path
):
    spec = NetworkSpec((7, 7, 8), (BLOCKS["residual"],), 1)
    model = random_model(spec)
    images = np.random.default_rng(0).normal(size=(3, 7, 7, 8)).astype("float32")

    def through_saved_model(model):
        import tensorflow as tf

        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(
            name="serve",
            fn=lambda images: {"scores": model(images, training=False)},
            input_signature=[tf.TensorSpec((1, 7, 7, 8), tf.float32, name="images")],
        )
        archive.write_out(str(tmp_path / "saved"), verbose=False)
        return tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))

    outputs, operators, signatures = [], [], []
    for make_converter in (through_saved_model, through_constants):
        path = tmp_path / f"{make_converter.__name__}.tflite"
        scheme = SCHEMES[Quantization(quantization)]
        path.write_bytes(flatbuffer(model, scheme, images, make_converter=make_converter))
        interpreter = load_interpreter(path)
        outputs.append(predict(interpreter, images))
        operators.append([op["op_name"] for op in interpreter._get_ops_details()])
        signatures.append(interpreter.get_signature_list())
    np.testing.assert_array_equal(*outputs)
    assert operators[0] == operators[1]
    assert signatures[0] == signatures[1]
    assert signatures[1] == {"serving_default": {"inputs": ["images"], "outputs": ["scores"]}}
