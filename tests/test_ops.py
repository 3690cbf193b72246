"""Primitive ops: what a writer puts down, and the weights of every kind."""

from __future__ import annotations

import pytest
from networks import mobilenet_v3_large

from bignas_tf.ops import (
    INPUT,
    Activation,
    Add,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Op,
    OpWriter,
    Tensor,
    shapes,
    weight_shapes,
)

IMAGE = Tensor(INPUT, 3)


def op(kind: type[Op], in_channels: int, channels: int, **fields) -> Op:
    return kind(name="a", inputs=(INPUT,), in_channels=in_channels, channels=channels, **fields)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (op(Conv, 6, 8, kernel_size=5), {"kernel": (5, 5, 6, 8)}),
        (
            op(Conv, 6, 8, kernel_size=3, groups=2, use_bias=True),
            {"kernel": (3, 3, 3, 8), "bias": (8,)},
        ),
        (op(DepthwiseConv, 8, 8, kernel_size=3), {"kernel": (3, 3, 8, 1)}),
        (op(BatchNorm, 8, 8), {"gamma": (8,), "beta": (8,)}),
        (op(Dense, 6, 8), {"kernel": (6, 8), "bias": (8,)}),
        (op(Dense, 6, 8, use_bias=False), {"kernel": (6, 8)}),
        (op(Add, 8, 8), {}),
    ],
)
def test_weights_have_the_names_and_shapes_of_keras(written, expected):
    assert weight_shapes(written) == expected
    assert all(isinstance(n, int) for shape in weight_shapes(written).values() for n in shape)


def test_a_tensor_knows_its_name_channels_and_pixels_per_position():
    writer = OpWriter(classes=2)
    writer.start("a")
    conv = writer.conv("conv", IMAGE, 8, 3, strides=2)
    depthwise = writer.depthwise("depthwise", conv, 3, strides=2)
    pool = writer.pool("pool", depthwise, "max", 3, 2)
    flat = writer.global_pool("flat", pool)
    other = writer.conv("other", IMAGE, 4, 1, strides=2)
    assert [conv, depthwise, pool] == [
        Tensor("a_conv", 8, 2), Tensor("a_depthwise", 8, 4), Tensor("a_pool", 8, 8),
    ]  # fmt: skip
    assert flat == Tensor("a_flat", 8, 0, flat=True)
    assert writer.global_pool("map", pool, keepdims=True) == Tensor("a_map", 8, 0)
    assert writer.dense("dense", flat, 5) == Tensor("a_dense", 5, 0, flat=True)
    assert writer.concat("concat", conv, other) == Tensor("a_concat", 12, 2)
    assert {written.block for written in writer.ops} == {"a"}
    found = shapes(writer.ops, (32, 24, 3))
    assert (found["a_conv"], found["a_pool"]) == ((16, 12, 8), (4, 3, 8))
    assert (found["a_flat"], found["a_map"], found["a_dense"]) == ((8,), (1, 1, 8), (5,))


def test_a_writer_without_a_block_adds_no_prefix():
    writer = OpWriter(classes=2)
    assert writer.conv("conv", IMAGE, 8, 3).name == "conv"
    assert writer.ops[0].block == ""


def test_a_name_is_written_once_and_never_that_of_the_image():
    writer = OpWriter(classes=2)
    writer.conv("a", IMAGE, 8, 3)
    for name in ("a", INPUT):
        with pytest.raises(ValueError, match=rf"must be unique .* Received: '{name}' twice"):
            writer.conv(name, IMAGE, 8, 3)


def test_what_changes_nothing_is_not_written():
    writer = OpWriter(classes=2)
    assert writer.dropout("dropout", IMAGE, 0) is IMAGE
    assert writer.activation("activation", IMAGE, "linear") is IMAGE
    assert writer.ops == []
    writer.dropout("dropout", IMAGE, 0.2)
    writer.activation("activation", IMAGE, "relu")
    assert [type(written) for written in writer.ops] == [Dropout, Activation]
    assert [written.name for written in writer.ops] == ["dropout", "activation"]
    assert writer.ops[0].rate == 0.2


def test_only_last_scales_of_residuals_start_at_zero_and_only_gates_may_be_nonzero():
    ops = mobilenet_v3_large().ops()
    # Table 1 of the paper: stride 1 and as many channels out as in; and the blocks with SE.
    residual, excited = (1, 3, 5, 6, 8, 9, 10, 12, 14, 15), (4, 5, 6, 11, 12, 13, 14, 15)
    zero = [op.name for op in ops if isinstance(op, BatchNorm) and op.zero_gamma]
    gates = [op.name for op in ops if isinstance(op, Activation) and op.gate]
    assert zero == [f"block{number}_project_bn" for number in residual]
    assert gates == [f"block{number}_se_gate" for number in excited]


X, FLAT, HALVED, WIDE = Tensor("x", 8), Tensor("f", 8, 0, True), Tensor("h", 8, 2), Tensor("w", 9)
BAD_OPS = {
    "add of sizes": lambda w: w.add("a", X, HALVED),
    "add of channels": lambda w: w.add("a", X, WIDE),
    "subtract": lambda w: w.subtract("a", X, WIDE),
    "multiply of channels": lambda w: w.multiply("a", X, WIDE),
    "multiply by a vector": lambda w: w.multiply("a", X, FLAT),
    "concat of sizes": lambda w: w.concat("a", X, HALVED),
    "no groups": lambda w: w.conv("a", X, 8, 3, groups=0),
    "groups of a fraction": lambda w: w.conv("a", X, 8, 3, groups=2.0),
    "dense of a map": lambda w: w.dense("a", X, 3),
    "depthwise of a vector": lambda w: w.depthwise("a", FLAT, 3),
    "pool of a vector": lambda w: w.pool("a", FLAT, "max", 2, 2),
    "pool of no kind": lambda w: w.pool("a", X, "median", 2, 2),
    "global pool of a vector": lambda w: w.global_pool("a", FLAT),
    "unknown activation": lambda w: w.activation("a", X, "tanh"),
}


@pytest.mark.parametrize("case", BAD_OPS)
def test_ops_that_do_not_fit_their_inputs_are_refused(case):
    argument = r"(inputs? of _a|groups|kind|function)"
    with pytest.raises(ValueError, match=rf"^`{argument}` must be (?!None).*Received: (?!None)"):
        BAD_OPS[case](OpWriter(classes=2))
