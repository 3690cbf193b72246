import json
import os
import shutil

import keras
import numpy as np
import onnx
import pytest

from bignas_tf import ops
from bignas_tf.blocks import ConvBlock, HeadBlock, MBConvBlock, SqueezeExcitation
from bignas_tf.child import build_child
from bignas_tf.deploy.conversion import onnx_file
from bignas_tf.deploy.conversion.folding_check import check_folding, explained, spec_of
from bignas_tf.deploy.conversion.graph import Graph, read_graph
from bignas_tf.deploy.formats import export
from bignas_tf.deploy.interpreter import delegated_parts, load_interpreter
from bignas_tf.deploy.tflite import convert
from bignas_tf.deploy.verification import VerificationError
from bignas_tf.spec import NetworkSpec

# Every activation, squeeze-and-excitation of both kinds, shortcuts of both kinds.
SPEC = NetworkSpec(
    input_shape=(24, 24, 3),
    classes=10,
    blocks=(
        ConvBlock(name="stem", channels=8, strides=2, activation="hard_swish"),
        MBConvBlock(
            name="one",
            channels=8,
            expand_ratio=2,
            activation="relu",
            se=SqueezeExcitation(activation="relu", gate="hard_sigmoid"),
        ),
        MBConvBlock(
            name="two",
            channels=12,
            strides=2,
            expand_ratio=2,
            activation="swish",
            se=SqueezeExcitation(),
            shortcut="projection",
        ),
        MBConvBlock(name="three", channels=12, expand_ratio=2, activation="relu6"),
        MBConvBlock(name="four", channels=12, expand_ratio=2, activation="hard_swish"),
        HeadBlock(name="head", channels=16, activation="hard_swish"),
    ),
)


PLAIN = NetworkSpec(
    input_shape=(8, 8, 3),
    classes=10,
    blocks=(ConvBlock(name="stem", channels=8, strides=2), HeadBlock(name="head")),
)


def child(spec=SPEC):
    model = build_child(spec, seed=0)
    random = np.random.default_rng(0)
    ranges = {"gamma": (1.0, 2.0), "beta": (-0.2, 0.2), "bias": (-0.2, 0.2)}
    ranges |= {"moving_mean": (-0.2, 0.2), "moving_variance": (0.5, 1.5)}
    for variable in model.weights:
        if variable.name in ranges:
            low, high = ranges[variable.name]
            variable.assign(random.uniform(low, high, variable.shape))
    return model


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_a_file_multiplies_and_adds_just_as_often_as_its_network_says(
    quantization, photographs, tmp_path
):
    done = convert(
        child(),
        tmp_path / "model.tflite",
        quantization=quantization,
        calibration_images=photographs[::2],
        verification_images=photographs[1::2],
    )
    # Two squeeze-and-excitations multiply, three swishes, one hard sigmoid, whose sum is part of
    # a bias; four shortcuts add. hard_swish and relu6 are operators of their own or part of others.
    assert done.folding == {
        "MUL": {"found": 6, "explained": 6},
        "ADD": {"found": 4, "explained": 4},
    }
    assert done.graph.operators["HARD_SWISH"] == 4
    assert "batch norm folded" in done.summary()
    # The float delegate takes all; in int8 it meets an activation that it does not know.
    assert ("HARD_SWISH" in done.graph.outside) == (quantization == "int8")


@pytest.mark.slow
def test_batch_norm_is_folded_in_an_onnx_file_too(photographs, tmp_path, monkeypatch):
    fold, raw = onnx_file._write_folded, tmp_path / "raw"

    def keep_raw(source, path):
        shutil.copyfile(source, raw)
        fold(source, path)

    monkeypatch.setattr(onnx_file, "_write_folded", keep_raw)
    output = tmp_path / "model.onnx"
    done = export(child(), output, "onnx", verification_images=photographs)
    # As above, the hard sigmoid's sum, and for each of four hard swishes two products and a sum.
    assert done.folding == {
        "MUL": {"found": 14, "explained": 14},
        "ADD": {"found": 9, "explained": 9},
    }
    assert "batch norm folded" in done.summary()
    described = json.loads(done.sidecar.read_text())
    assert (described["operators"], described["folding"]) == (done.operators, done.folding)
    opset = [("", 18)]
    assert [(o.domain, o.version) for o in onnx.load(output).opset_import] == opset
    # What tf2onnx alone leaves is noticed.
    with pytest.raises(VerificationError, match="not folded: the ONNX file has 18 MUL .* 14"):
        check_folding(onnx_file.onnx_operators(raw), SPEC, onnx=True)


def test_a_batch_norm_that_is_not_folded_fails_the_conversion(photographs, tmp_path):
    inputs = keras.Input((8, 8, 3))
    stray = keras.layers.BatchNormalization()
    model = keras.Model(inputs, child(PLAIN)(stray(inputs)))
    stray.moving_mean.assign([0.1, 0.2, 0.3])
    metadata = {"spec": PLAIN.to_json()}
    with pytest.raises(VerificationError, match="batch norm is not folded: .* 2 MUL .* explain 1"):
        convert(
            model,
            tmp_path / "model.tflite",
            verification_images=photographs[:4, ::3, ::3],
            metadata=metadata,
        )
    assert not os.listdir(tmp_path)


def test_batch_norms_that_cannot_be_folded_are_expected_to_stay():
    writer = ops.OpWriter(classes=2)
    writer.start("a")
    x = writer.conv("conv", ops.Tensor(ops.INPUT, 3), 4, 1)
    first, second = writer.batch_norm("bn1", x), writer.batch_norm("bn2", x)
    total = writer.add("add", first, second, x)
    x = writer.depthwise("depthwise", writer.batch_norm("bn4", total), 3)
    x = writer.activation("gate1", writer.batch_norm("bn3", x), "hard_sigmoid")
    # bn1 and bn2 share a convolution, bn4 follows a sum; bn3 folds, and with it the sum of the
    # hard sigmoid, whose product stays. The sum has three terms.
    assert explained(writer.ops) == {"MUL": 4, "ADD": 5}
    assert explained(writer.ops, rescaled=True) == {"MUL": 5, "ADD": 6}
    assert explained(writer.ops, rounded=True) == {"MUL": 4, "ADD": 6}
    writer.activation("gate2", x, "hard_sigmoid")
    assert explained(writer.ops) == {"MUL": 5, "ADD": 6}
    writer.activation("last", x, "hard_swish")
    assert explained(writer.ops) == {"MUL": 5, "ADD": 6}
    assert explained(writer.ops, composed=True) == {"MUL": 7, "ADD": 7}


def test_differences_and_quotients_count_as_sums_and_products():
    limits = explained(SPEC.ops())
    operators = {"MUL": limits["MUL"] - 1, "DIV": 1, "ADD": limits["ADD"] - 1, "SUB": 1}
    assert check_folding(operators, SPEC)["MUL"]["found"] == limits["MUL"]
    with pytest.raises(VerificationError, match="ADD"):
        check_folding(operators | {"SUB": 2}, SPEC)
    check_folding({**operators, "SUB": 2, "MUL": limits["MUL"]}, SPEC, rescaled=True)


def test_the_network_is_that_of_the_json_or_of_the_model():
    model = child()
    assert spec_of(model, {}) == SPEC
    other = SPEC.with_input_shape((32, 32, 3))
    assert spec_of(model, {"spec": other.to_json()}) == other
    assert spec_of(model, {"spec": {"blocks": [{"type": "unheard of"}]}}) is None
    assert spec_of(keras.Sequential(), {}) is None


def test_operators_are_counted_inside_and_outside_the_delegate(float_file):
    delegated = load_interpreter(float_file)
    graph = read_graph(delegated)
    assert graph.operators["CONV_2D"] == 3
    assert graph.operators["DEPTHWISE_CONV_2D"] == 1
    assert (graph.delegate_parts, graph.outside) == (delegated_parts(delegated), {})
    assert graph.delegate_parts == 1 and graph.warning() is None
    plain = read_graph(load_interpreter(float_file, delegate="none"))
    assert plain.operators == plain.outside == graph.operators
    assert plain.delegate_parts == 0 and plain.summary().endswith("XNNPACK takes none")
    assert "takes none of the operators" in plain.warning()


def test_a_graph_in_many_parts_is_warned_of_with_what_cuts_it():
    graph = Graph({"CONV_2D": 60, "HARD_SWISH": 46}, 47, {"HARD_SWISH": 46})
    assert "does not take 46 HARD_SWISH: the graph is cut into 47" in graph.warning()
    assert graph.summary() == "106 operators, XNNPACK takes 60 in 47 parts (not 46 HARD_SWISH)"
