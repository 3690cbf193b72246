"""Specs: JSON and back, and every impossible value refused by its name."""

import dataclasses
import json
import math
import re

import pytest
from networks import (
    PairCellBlock,
    SplitAttentionBlock,
    cell_network,
    efficientnet_b0,
    mnasnet_a1,
    mobilenet_v2,
    mobilenet_v3_large,
    split_attention_network,
)

from bignas_tf.blocks import (
    Block,
    ConvBlock,
    HeadBlock,
    MBConvBlock,
    SqueezeExcitation,
    make_divisible,
    register_block,
)
from bignas_tf.ops import INPUT, Add, BatchNorm, last_uses, shapes
from bignas_tf.spaces import get_space
from bignas_tf.spaces.genotype import as_tuples
from bignas_tf.spec import NetworkSpec

NETWORKS = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "efficientnet_b0": efficientnet_b0,
    "mnasnet_a1": mnasnet_a1,
    "cell": cell_network,
    "split_attention": split_attention_network,
    "bignas": lambda: get_space("bignas").biggest().spec(),
    "attentivenas": lambda: get_space("attentivenas").smallest().spec(),
}
STEM = ConvBlock(name="stem", channels=8)
HEAD = HeadBlock(name="head")


def network(*blocks: Block, **arguments) -> NetworkSpec:
    return NetworkSpec(**({"input_shape": (8, 8, 3), "blocks": blocks, "classes": 2} | arguments))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_equals_itself_after_json(name):
    spec = NETWORKS[name]()
    text = json.dumps(spec.to_json(), allow_nan=False)
    for other in (NetworkSpec.from_json(spec.to_json()), NetworkSpec.from_json(text)):
        assert other == spec
        assert hash(other) == hash(spec)
        assert other.ops() == spec.ops()
    assert json.dumps(NetworkSpec.from_json(text).to_json()) == text


@pytest.mark.parametrize("name", NETWORKS)
def test_ops_read_earlier_ops_and_fit_at_every_resolution(name):
    spec = NETWORKS[name]()
    channels = {INPUT: spec.input_shape[-1]}
    for op in spec.ops():
        assert set(op.inputs) <= set(channels)
        first = sum if type(op).__name__ == "Concat" else lambda values: values[0]
        assert op.in_channels == first([channels[read] for read in op.inputs])
        channels[op.name] = op.channels
    for size in ((65, 33), (224, 97)):
        found = shapes(spec.ops(), (*size, spec.input_shape[-1]))
        for op in spec.ops():
            if isinstance(op, Add):
                assert len({found[read] for read in op.inputs}) == 1


def test_only_the_output_is_read_after_the_last_op():
    ops = mobilenet_v2().ops()
    last = last_uses(ops)
    assert [name for name, index in last.items() if index == len(ops)] == [ops[-1].name]
    assert last[INPUT] == 0


def test_defaults_are_left_out_of_json():
    block = MBConvBlock(name="a", channels=8, expand_ratio=3)
    assert block.to_json() == {"type": "mbconv", "name": "a", "channels": 8, "expand_ratio": 3}


def test_another_shape_or_number_of_classes_changes_nothing_else():
    spec = mobilenet_v2()
    assert spec.with_input_shape((32, 48, 3)).ops() == spec.ops()
    assert spec.with_input_shape((32, 48, 3)).with_input_shape(spec.input_shape) == spec
    assert spec.with_classes(10).ops()[-1].channels == 10
    assert spec.with_classes(10).ops()[:-1] == spec.ops()[:-1]
    assert spec.with_classes(10).with_classes(1000) == spec


def test_networks_that_share_blocks_keep_their_own_epsilon_and_input():
    thin, thick = network(STEM, HEAD), network(STEM, HEAD, input_shape=(8, 8, 5))
    assert (thin.ops()[0].in_channels, thick.ops()[0].in_channels) == (3, 5)
    fine = network(STEM, HEAD, batch_norm_epsilon=1e-5)
    epsilons = [
        {op.epsilon for op in spec.ops() if isinstance(op, BatchNorm)} for spec in (thin, fine)
    ]
    assert epsilons == [{1e-3}, {1e-5}]


@pytest.mark.parametrize(
    ("value", "divisor", "rounded"),
    [(33, 8, 32), (36, 8, 40), (4, 8, 8), (18, 8, 24), (10.5, 1, 11), (8.4, 1, 8), (59, 32, 64)],
)
def test_channels_are_rounded_to_a_multiple_never_below_nine_tenths(value, divisor, rounded):
    assert make_divisible(value, divisor) == rounded


@pytest.mark.parametrize(
    ("channels", "ratio", "divisor", "hidden"),
    [(10, 0.25, 1, 2), (14, 0.25, 1, 3), (3, 0.25, 1, 1), (32, 0.25, 1, 8), (14, 0.25, 2, 4)],
)
def test_the_hidden_width_of_a_gate_is_rounded_down_unless_it_has_a_divisor(
    channels, ratio, divisor, hidden
):
    assert SqueezeExcitation(ratio=ratio, divisor=divisor).width(channels, 99) == hidden


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_a_plain_network_may_have_even_kernels(size):
    conv = ConvBlock(name="stem", channels=8, kernel_size=size)
    depthwise = MBConvBlock(name="a", channels=8, kernel_size=size, expand_ratio=1)
    spec = network(conv, depthwise, HEAD)
    assert NetworkSpec.from_json(json.dumps(spec.to_json())) == spec


NOT_INTS = [0, -1, 1.0, "8", None, True, math.nan, math.inf, [8], {}]
NOT_NUMBERS = [0, -0.5, math.nan, math.inf, "1", True, [1.0], {}]
NOT_KERNELS = [*NOT_INTS, (3, 3)]
NOT_RATES = [1, 1.5, -0.1, math.nan, "0.1", None, False, [0.1]]
NOT_NAMES = [5, None, True, ["relu"], {"a": 1}, "gelu_tanh", "Relu", ""]
BLOCK = {
    "conv": {"channels": 8},
    "mbconv": {"channels": 8, "expand_ratio": 4},
    "head": {},
    "mobilenetv3_head": {"channels": 8, "features": 8},
}
BAD_FIELDS = [
    *[("conv", field, bad) for field in ("channels", "strides", "groups", "dilation")
      for bad in NOT_INTS],
    *[("conv", "kernel_size", bad) for bad in NOT_KERNELS],
    *[("conv", "activation", bad) for bad in NOT_NAMES],
    *[("mbconv", field, bad) for field in ("channels", "strides", "expand_divisor")
      for bad in NOT_INTS],
    *[("mbconv", "kernel_size", bad) for bad in NOT_KERNELS],
    *[("mbconv", "expand_ratio", bad) for bad in [*NOT_NUMBERS, 0.9, None]],
    *[("mbconv", "expanded_channels", 8)],
    *[("mbconv", field, bad) for field in ("activation", "shortcut") for bad in NOT_NAMES],
    *[("head", "channels", bad) for bad in NOT_INTS if bad is not None],
    *[("head", "activation", bad) for bad in NOT_NAMES],
    *[("head", "dropout", bad) for bad in NOT_RATES],
    *[("mobilenetv3_head", field, bad) for field in ("channels", "features") for bad in NOT_INTS],
    *[("mobilenetv3_head", "features_bias", bad) for bad in [0, 1, None, "yes", []]],
    *[("mobilenetv3_head", "dropout", bad) for bad in NOT_RATES],
    *[(kind, "name", bad) for kind in BLOCK for bad in ["", "a b", "1a", "a/b", 3, None, ["a"]]],
    *[(kind, "inputs", bad) for kind in BLOCK for bad in ["stem", 3, None, [3], [["a"]], {}]],
]  # fmt: skip
BAD_SE = [
    *[("ratio", bad) for bad in [*NOT_NUMBERS, None]],
    *[("relative_to", bad) for bad in NOT_NAMES],
    *[("divisor", bad) for bad in NOT_INTS],
    *[("activation", bad) for bad in NOT_NAMES],
    *[("gate", bad) for bad in [*NOT_NAMES, "relu"]],
]
BAD_NETWORKS = [
    *[("classes", bad) for bad in NOT_INTS],
    *[("batch_norm_epsilon", bad) for bad in [*NOT_NUMBERS, None]],
    *[("input_shape", bad) for bad in [
        None, 8, "8x8", [], [8, 8], [8, 8, 3, 1], [8, 0, 3], [8, -8, 3], [8, 8.0, 3], [8, 8, None],
        [8, True, 3], [[8], 8, 3], {"height": 8},
    ]],
    *[("blocks", bad) for bad in [None, [], {}, 3, "stem"]],
]  # fmt: skip


def refusal(argument: str, received: str = ".+") -> str:
    return rf"(?s)`[^`]*{argument}`.*Received: {received}"


def shown(bad: object) -> str:
    """How a message shows a value of JSON: lists have become tuples."""
    return re.escape(repr(as_tuples(bad))) + "$"


@pytest.mark.parametrize(("kind", "field", "bad"), BAD_FIELDS)
def test_impossible_fields_of_blocks_are_refused_by_name(kind, field, bad):
    with pytest.raises(ValueError, match=refusal(field)):
        Block.from_json({"type": kind, "name": "a"} | BLOCK[kind] | {field: bad})


@pytest.mark.parametrize(("field", "bad"), BAD_SE)
def test_impossible_fields_of_squeeze_excitation_are_refused_by_name(field, bad):
    fields = {"type": "mbconv", "name": "a"} | BLOCK["mbconv"] | {"se": {field: bad}}
    with pytest.raises(ValueError, match=refusal(f"se.{field}", shown(bad))):
        Block.from_json(fields)


@pytest.mark.parametrize("bad", [3, "quarter", [], True, {"width": 8}, {"ratio": 1, 2: 3}])
def test_anything_else_for_squeeze_excitation_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=refusal("se")):
        Block.from_json({"type": "mbconv", "name": "a"} | BLOCK["mbconv"] | {"se": bad})


@pytest.mark.parametrize(("field", "bad"), BAD_NETWORKS)
def test_impossible_fields_of_networks_are_refused_by_name(field, bad):
    fields = network(STEM, HEAD).to_json() | {field: bad}
    with pytest.raises(ValueError, match=refusal(field, shown(bad))):
        NetworkSpec.from_json(fields)


@pytest.mark.parametrize("bad", [None, 3, "conv", [], {}, {"name": "a"}, {"type": ["conv"]}])
def test_a_block_of_no_known_type_is_refused(bad):
    with pytest.raises(ValueError, match=r"(block|`type`) must be (?!None).*Received: "):
        Block.from_json(bad)
    with pytest.raises(ValueError, match=r"(block|`type`) must be (?!None).*Received: "):
        NetworkSpec.from_json({"input_shape": [8, 8, 3], "classes": 2, "blocks": [bad]})


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", "[", '{"classes": 2,}', "[" * 100_000, "3", "null", "[]", '"a"']
)
def test_text_that_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match=r"^A network must be .*Received: .{1,100}$"):
        NetworkSpec.from_json(text)


@pytest.mark.parametrize(("text", "shown"), [("[" * 80, "[" * 80), ("[" * 81, "[" * 80 + "...")])
def test_text_that_is_no_network_is_shown_up_to_80_characters(text, shown):
    with pytest.raises(ValueError, match=rf" Received: '{re.escape(shown)}'$"):
        NetworkSpec.from_json(text)


@pytest.mark.parametrize("bad", [None, 3, b"{}", ["classes"]])
def test_an_object_that_is_no_network_is_refused(bad):
    with pytest.raises(ValueError, match=r"^A network must be a JSON object\. Received: "):
        NetworkSpec.from_json(bad)


def test_unknown_keys_are_refused_with_those_allowed():
    with pytest.raises(ValueError, match=r"'a' of type 'conv' .*channels.*Received: 3, filters"):
        Block.from_json({"type": "conv", "name": "a", "channels": 8, "filters": 8, 3: 3})
    with pytest.raises(ValueError, match=r"A network .*classes.*Received: num_outputs"):
        NetworkSpec.from_json(network(STEM).to_json() | {"num_outputs": 3})


def test_missing_keys_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'a' of type 'conv' lacks .*: channels\. Received: name"):
        Block.from_json({"type": "conv", "name": "a"})
    with pytest.raises(ValueError, match=r"keys: blocks, classes, input_shape\. Received: none"):
        NetworkSpec.from_json({})


def cell(*inputs: str) -> PairCellBlock:
    return PairCellBlock(name="cell", inputs=inputs, channels=4)


HALF = ConvBlock(name="half", channels=8, strides=2)
ATTENTION = SplitAttentionBlock(name="attention", width=6, hidden=3, groups=4)
BAD_WIRING = {
    "blocks is a list": ("blocks", lambda: NetworkSpec((8, 8, 3), [STEM], 2)),
    "no Block": ("blocks", lambda: network(STEM, "head")),
    "a name twice": ("name", lambda: network(STEM, STEM)),
    "named as the input": ("name", lambda: network(ConvBlock(name="input", channels=8))),
    "reads a later block": (
        "inputs of block 'a'", lambda: network(ConvBlock(name="a", inputs=("head",), channels=8))),
    "reads itself": (
        "inputs of block 'a'", lambda: network(ConvBlock(name="a", inputs=("a",), channels=8))),
    "one input too many": (
        "inputs of block 'head'",
        lambda: network(STEM, HeadBlock(name="head", inputs=("stem", "input")))),
    "one input too few": ("inputs of block 'cell'", lambda: network(STEM, cell("stem"))),
    "sizes of a concat differ": (
        "inputs of cell_concat", lambda: network(STEM, HALF, cell("stem", "half"), HEAD)),
    "a convolution after the head": ("input of half_conv", lambda: network(STEM, HEAD, HALF)),
    "groups do not divide the input": (
        "groups", lambda: network(ConvBlock(name="a", channels=8, groups=4))),
    "groups do not divide the output": (
        "groups", lambda: network(STEM, ConvBlock(name="a", channels=12, groups=8))),
    "groups of a block of the tests": ("groups", lambda: network(STEM, ATTENTION)),
    "dilated and strided": (
        "dilation", lambda: ConvBlock(name="a", channels=8, strides=2, dilation=2)),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_WIRING)
def test_blocks_that_do_not_fit_are_refused_by_name(case):
    argument, build = BAD_WIRING[case]
    with pytest.raises(ValueError, match=rf"^`{argument}` must be (?!None).*Received: .+"):
        build()


def test_blocks_whose_ops_share_a_name_are_refused():
    first = MBConvBlock(name="a", channels=8, expand_ratio=4)
    with pytest.raises(ValueError, match=r"unique in a network\. Received: 'a_expand_conv' twice"):
        network(STEM, first, ConvBlock(name="a_expand", channels=8))


def test_a_block_that_writes_no_ops_is_no_network():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Nothing(Block):
        def ops(self, writer, *inputs):
            return inputs[0]

    assert network(STEM, Nothing(name="same"), HEAD).ops() == network(STEM, HEAD).ops()
    with pytest.raises(ValueError, match=r"^`blocks` must be (?!None).*Received: 'input'"):
        network(Nothing(name="same"))
    with pytest.raises(ValueError, match=r"^`blocks` must be (?!None).*Received: 'input'"):
        network(STEM, Nothing(name="same", inputs=("input",)))


def test_a_type_name_is_taken_once():
    with pytest.raises(ValueError, match="'pair_cell' exists already"):
        register_block("pair_cell")(PairCellBlock)


def test_values_are_frozen_and_have_equal_hashes():
    se = SqueezeExcitation(divisor=8)
    block = MBConvBlock(name="a", channels=8, expand_ratio=4, se=se)
    assert hash(block) == hash(Block.from_json(json.loads(json.dumps(block.to_json()))))
    with pytest.raises(dataclasses.FrozenInstanceError):
        block.channels = 16
