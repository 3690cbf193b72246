"""Files of blocks: what they compute, and how large whole ones are."""

from __future__ import annotations

import numpy as np
import pytest

from bignas_tf.blocks import ConvBlock, HeadBlock, MBConvBlock, SqueezeExcitation
from bignas_tf.deploy.converter import flatbuffer, through_constants, through_saved_model
from bignas_tf.deploy.interpreter import load_interpreter, predict
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.file_size import QUANTIZATIONS, file_size_mb
from bignas_tf.spaces import get_space
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


def random_model(spec):
    """Every weight has a value of its own, the statistics of batch norm too."""
    from bignas_tf.child import build_child

    model = build_child(spec, seed=0)
    rng = np.random.Generator(np.random.Philox(0))
    for variable in model.weights:  # weights of one value would also share their bytes
        positive = variable.name == "moving_variance"
        draw = rng.uniform(0.5, 1.5, variable.shape) if positive else None
        variable.assign(rng.normal(size=variable.shape) if draw is None else draw)
    return model


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_file_of_constants_computes_what_keras_does(kind, tmp_path):
    spec = NetworkSpec((7, 7, 8), (BLOCKS[kind],), 5)
    model = random_model(spec)
    data = flatbuffer(model, SCHEMES[Quantization.FLOAT32], make_converter=through_constants)
    path = tmp_path / "block.tflite"
    path.write_bytes(data)
    images = np.random.default_rng(0).normal(size=(3, *spec.input_shape)).astype("float32")
    expected = model.predict_on_batch(images)
    scale = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.1 * scale  # it depends on the image
    found = predict(load_interpreter(path), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def test_a_file_of_constants_has_the_operators_and_outputs_of_one_of_a_saved_model(tmp_path):
    spec = NetworkSpec((7, 7, 8), (BLOCKS["residual"],), 1)
    model = random_model(spec)
    images = np.random.default_rng(0).normal(size=(3, 7, 7, 8)).astype("float32")
    outputs, operators = [], []
    for make_converter in (through_saved_model, through_constants):
        path = tmp_path / f"{make_converter.__name__}.tflite"
        scheme = SCHEMES[Quantization.FLOAT32]
        path.write_bytes(flatbuffer(model, scheme, make_converter=make_converter))
        interpreter = load_interpreter(path)
        outputs.append(predict(interpreter, images))
        operators.append([op["op_name"] for op in interpreter._get_ops_details()])
    np.testing.assert_array_equal(*outputs)
    assert operators[0] == operators[1]


@pytest.mark.parametrize(
    ("name", "drawn", "quantizations"),
    [
        ("digits", 0, ["float32", "int8"]),
        pytest.param("digits", 2, QUANTIZATIONS, marks=pytest.mark.long),
        pytest.param("cifar", 2, QUANTIZATIONS, marks=pytest.mark.long),
    ],
)
def test_the_predicted_sizes_of_children_are_within_two_percent(name, drawn, quantizations):
    space = get_space(name)
    genotypes = [space.smallest(), space.biggest(), *space.sample(drawn, seed=3)]
    rng = np.random.Generator(np.random.Philox(0))
    for genotype in genotypes[: drawn + 2 if drawn else 1]:
        model = random_model(genotype.spec())
        images = rng.standard_normal((4, *genotype.spec().input_shape), np.float32)
        for quantization in quantizations:
            scheme = SCHEMES[Quantization(quantization)]
            size = len(flatbuffer(model, scheme, images if scheme.calibrated else None)) / 1e6
            assert file_size_mb(genotype.spec(), quantization) == pytest.approx(size, rel=0.02)
