"""Costs: against published networks, keras.applications, Keras layer shapes and hand counts."""

import dataclasses
import json
import math
import pathlib
import random
import re
import subprocess
import sys

import keras
import pytest
from networks import (
    attentivenas,
    bignas,
    cell_network,
    efficientnet_b0,
    fairnas,
    mnasnet_a1,
    mobilenet_v2,
    mobilenet_v3_large,
    split_attention_network,
)

from bignas_tf.blocks import ConvBlock, HeadBlock, MBConvBlock, SqueezeExcitation
from bignas_tf.child import build_child
from bignas_tf.cost import Cost, count, profile
from bignas_tf.ops import INPUT, OpWriter, Tensor, shapes
from bignas_tf.spaces import MBConvSpace, get_space
from bignas_tf.spec import NetworkSpec

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "published_networks.json"
PUBLISHED = json.loads(FIXTURE.read_text())
NETWORKS = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "efficientnet_b0": efficientnet_b0,
    "mnasnet_a1": mnasnet_a1,
    "cell": cell_network,
    "split_attention": split_attention_network,
    "bignas": lambda: bignas_networks()[0],
    "attentivenas": lambda: attentivenas_spec(PUBLISHED["attentivenas"]["networks"][1]),
}


def bignas_networks(**arguments) -> list[NetworkSpec]:
    return [
        bignas(n["resolution"], n["width"], n["depth"], n["kernel_size"], **arguments)
        for n in PUBLISHED["bignas"]["networks"]
    ]


def attentivenas_spec(network: dict, **arguments) -> NetworkSpec:
    keys = ("resolution", "width", "depth", "kernel_size", "expand_ratio")
    return attentivenas(*(network[key] for key in keys), **arguments)


def genes(network: dict) -> dict[str, int]:
    """The genes of a network of the fixture, without those of its expansion ratios."""
    values = {"resolution": network["resolution"], "stem_width": network["width"][0]}
    for stage in range(1, 8):
        values[f"stage{stage}_width"] = network["width"][stage]
        values[f"stage{stage}_depth"] = network["depth"][stage - 1]
        values[f"stage{stage}_kernel"] = network["kernel_size"][stage - 1]
    return values | {"head_width": network["width"][8]}


def without_dropout(name: str) -> MBConvSpace:
    """A space whose networks have none, as those of the papers' tables."""
    return dataclasses.replace(get_space(name), dropout=0.0)


def keras_macs(model: keras.Model) -> int:
    """Kernel size times output positions, over the layers of a model."""
    return sum(
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in model.layers
        if hasattr(layer, "kernel")
    )


def keras_params(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def peak_by_definition(spec: NetworkSpec) -> int:
    """For every op the sum over all tensors that exist and are used then or later."""
    ops = spec.ops()
    sizes = {name: 4 * math.prod(shape) for name, shape in shapes(ops, spec.input_shape).items()}
    made = {INPUT: -1} | {op.name: index for index, op in enumerate(ops)}
    read = {name: [i for i, op in enumerate(ops) if name in op.inputs] for name in made}
    return max(
        sum(
            sizes[name]
            for name in made
            if made[name] == now or (made[name] < now and any(i >= now for i in read[name]))
        )
        for now in range(len(ops))
    )


def random_network(seed: int) -> NetworkSpec:
    """A small network with groups, dilation, odd sizes, gates and every kind of shortcut."""
    rng = random.Random(seed)  # noqa: S311 - not for security
    dilation = rng.choice((1, 2))
    blocks = [
        ConvBlock(name="stem", channels=rng.choice((8, 16)), strides=2),
        ConvBlock(
            name="grouped", channels=rng.choice((8, 24)), groups=rng.choice((1, 2, 8)),
            strides=1 if dilation > 1 else rng.choice((1, 2)), dilation=dilation,
        ),
    ]  # fmt: skip
    for index in range(4):
        blocks.append(
            MBConvBlock(
                name=f"block{index}", channels=rng.choice((8, 16, 20)),
                kernel_size=rng.choice((3, 5)), strides=rng.choice((1, 2)),
                expand_ratio=rng.choice((1, 2.5, 4)),
                se=rng.choice((None, SqueezeExcitation(ratio=0.3))),
                shortcut=rng.choice(("none", "identity", "projection", "projection_always")),
            )
        )  # fmt: skip
    blocks.append(HeadBlock(name="head", channels=rng.choice((None, 32))))
    return NetworkSpec((rng.randint(17, 40), rng.randint(17, 40), 3), tuple(blocks), classes=7)


def assert_counts(cost: Cost, network: dict) -> None:
    assert cost.mmacs == pytest.approx(network["mmacs"], abs=0.01)
    assert cost.params_m == pytest.approx(network["params_m"], abs=0.001)


@pytest.mark.parametrize("network", PUBLISHED["attentivenas"]["networks"], ids=lambda n: n["name"])
def test_attentivenas_networks_have_their_recounted_cost(network):
    spec = attentivenas_spec(network)
    ratios = {f"stage{i}_expand": ratio for i, ratio in enumerate(network["expand_ratio"], 1)}
    costs = profile(spec)
    assert_counts(costs.total, network)
    assert without_dropout("attentivenas").genotype(genes(network) | ratios).spec() == spec
    if network["published_mmacs"] is not None:
        assert round(costs.total.mmacs) == pytest.approx(network["published_mmacs"], abs=1)
    if network["mmacs_without_shortcut_convs"] is not None:
        shortcuts = sum(op.macs for op in costs.ops if op.name.endswith("shortcut_conv"))
        bare = (costs.total.macs - shortcuts) / 1e6
        assert bare == pytest.approx(network["mmacs_without_shortcut_convs"], abs=0.01)
        assert count(attentivenas_spec(network, shortcut="identity")).mmacs == bare


@pytest.mark.parametrize("network", PUBLISHED["fairnas"]["networks"], ids=lambda n: n["name"])
def test_fairnas_networks_have_their_recounted_cost(network):
    assert_counts(count(fairnas(network["layers"])), network)


@pytest.mark.parametrize("index", range(len(PUBLISHED["bignas"]["networks"])))
def test_the_bounds_of_the_bignas_space_have_their_recounted_cost(index):
    network = PUBLISHED["bignas"]["networks"][index]
    bare = count(bignas_networks(shortcut="identity")[index])
    assert_counts(count(bignas_networks()[index]), network)
    assert bare.mmacs == pytest.approx(network["mmacs_without_shortcut_convs"], abs=0.01)
    assert bare.params_m == pytest.approx(network["params_m_without_shortcut_convs"], abs=0.001)


def test_the_bignas_space_ends_at_its_published_bounds():
    space = without_dropout("bignas")
    bounds = [space.smallest(), space.biggest()]
    for genotype, network, spec in zip(
        bounds, PUBLISHED["bignas"]["networks"], bignas_networks(), strict=True
    ):
        assert genotype.as_dict().items() >= genes(network).items()
        assert genotype.spec() == spec


def test_efficientnet_b0_has_its_recounted_cost():
    assert_counts(count(efficientnet_b0()), PUBLISHED["efficientnet_b0"])


def test_mnasnet_a1_has_its_published_cost_to_the_printed_digits():
    network = PUBLISHED["mnasnet_a1"]
    cost = count(mnasnet_a1())
    assert round(cost.mmacs) == network["published_mmacs"]
    assert round(cost.params_m, 1) == network["published_params_m"]


@pytest.mark.parametrize(
    ("application", "spec", "arguments"),
    [
        ("MobileNetV2", mobilenet_v2, {}),
        ("MobileNetV3Large", mobilenet_v3_large, {"input_shape": (224, 224, 3)}),
        ("EfficientNetB0", efficientnet_b0, {}),
    ],
)
def test_counts_equal_those_of_keras_applications(application, spec, arguments):
    model = getattr(keras.applications, application)(weights=None, **arguments)
    cost = count(spec())
    assert cost.params == keras_params(model)
    assert cost.macs == keras_macs(model)


def test_mobilenet_v2_has_its_known_number_of_parameters():
    assert count(mobilenet_v2()).params == PUBLISHED["mobilenet_v2"]["params"]


@pytest.mark.parametrize("seed", range(6))
def test_counts_equal_those_of_the_built_model(seed):
    spec = random_network(seed)
    model = build_child(spec)
    cost = count(spec)
    assert cost.params == keras_params(model)
    assert cost.macs == keras_macs(model)


def test_another_resolution_counts_as_a_spec_of_that_resolution():
    spec = efficientnet_b0()
    for resolution in (32, 97, 260):
        resized = spec.with_input_shape((resolution, resolution, 3))
        assert count(spec, resolution) == count(resized) == profile(spec, resolution).total
    wide = (64, 33, 3)
    assert count(spec, input_shape=wide) == count(spec.with_input_shape(wide))
    assert count(spec.ops(), input_shape=wide) == count(spec, input_shape=wide)


def test_counting_imports_neither_numpy_nor_keras():
    code = "import sys, bignas_tf.cost; print({'numpy', 'keras', 'tensorflow'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert run.stdout == "set()\n"


def test_odd_sizes_divide_rounding_up():
    stem = ConvBlock(name="stem", channels=2, kernel_size=1, strides=2)
    assert count(NetworkSpec((5, 8, 1), (stem,), classes=1)).macs == 3 * 4 * 2


@pytest.mark.parametrize("name", NETWORKS)
def test_peak_memory_follows_its_definition(name):
    spec = NETWORKS[name]()
    assert count(spec).peak_activation_bytes == peak_by_definition(spec)


@pytest.mark.parametrize("seed", range(20))
def test_peak_memory_of_random_networks_follows_its_definition(seed):
    spec = random_network(seed)
    assert count(spec).peak_activation_bytes == peak_by_definition(spec)


def test_live_memory_equals_a_count_by_hand():
    writer = OpWriter(classes=3)
    x = Tensor(INPUT, 2)  # 4x4x2, 32 values
    a = writer.conv("a", x, 4, 3)  # 64: input 32 + a 64
    b = writer.conv("b", a, 8, 3, strides=2)  # 2x2x8, 32: a 64 + b 32
    c = writer.conv("c", b, 8, 1)  # 32: a 64 (d reads it) + b 32 + c 32
    d = writer.conv("d", a, 8, 1, strides=2)  # 32: a 64 + c 32 + d 32
    e = writer.add("e", c, d)  # 32: c 32 + d 32 + e 32
    twice = writer.add("twice", e, e)  # 32: e 32 once + twice 32
    flat = writer.global_pool("flat", twice)  # 8: twice 32 + flat 8
    writer.dense("classifier", flat, writer.classes)  # 3: flat 8 + 3
    costs = profile(writer.ops, input_shape=(4, 4, 2))
    live = [96, 96, 128, 128, 96, 64, 40, 11]
    assert [op.live_bytes for op in costs.ops] == [4 * values for values in live]
    assert [op.output_bytes for op in costs.ops] == [
        4 * values for values in (64, 32, 32, 32, 32, 32, 8, 3)
    ]
    assert costs.total.peak_activation_bytes == 512


def test_an_output_that_nothing_reads_lives_for_one_op():
    writer = OpWriter(classes=1)
    x = Tensor(INPUT, 1)
    writer.conv("unread", x, 100, 1)
    writer.global_pool("flat", x)
    costs = profile(writer.ops, input_shape=(3, 3, 1))
    assert [op.live_bytes for op in costs.ops] == [4 * (9 + 900), 4 * (9 + 1)]


def test_a_cell_defined_in_the_tests_is_counted():
    costs = profile(cell_network())
    assert {name: (cost.macs, cost.params) for name, cost in costs.blocks.items()} == {
        "stem": (25 * 9 * 3 * 8, 9 * 3 * 8 + 2 * 8),
        "left": (25 * 8 * 6, 8 * 6 + 2 * 6),
        "right": (25 * 9 * (8 // 4) * 4, 9 * (8 // 4) * 4 + 2 * 4),
        "cell": (25 * (6 * 5 + 4 * 5), 6 * 5 + 4 * 5 + 4 * 5),
        "top": (15 * 7, 15 * 7 + 7),
    }
    assert (costs.total.macs, costs.total.params) == (9755, 554)


def test_a_split_attention_bottleneck_defined_in_the_tests_is_counted():
    macs = [
        64 * 4 * 6,  # reduce
        2 * 64 * 9 * (6 // 2) * 6,  # two branches of two groups
        6 * 3 + 2 * 3 * 6,  # attention
        64 * 6 * 4,  # project
        4 * 2,  # classifier
    ]
    params = [24 + 12, 2 * (9 * 3 * 6 + 12), 18 + 6, 2 * (18 + 6), 24 + 8, 8 + 2]
    cost = count(split_attention_network())
    assert (cost.macs, cost.params) == (sum(macs), sum(params)) == (23870, 498)


def test_blocks_and_total_are_sums_and_peaks_of_the_ops():
    costs = profile(mobilenet_v3_large())
    assert list(costs.blocks) == ["stem", *(f"block{i}" for i in range(1, 16)), "head", "top"]
    for field in ("macs", "params"):
        of_ops = sum(getattr(op, field) for op in costs.ops)
        assert sum(getattr(cost, field) for cost in costs.blocks.values()) == of_ops
        assert getattr(costs.total, field) == of_ops
    peaks = [cost.peak_activation_bytes for cost in costs.blocks.values()]
    assert costs.total.peak_activation_bytes == max(peaks)


def test_millions_are_exact():
    cost = Cost(macs=1_500_000, params=2_250_000, peak_activation_bytes=0)
    assert (cost.mmacs, cost.params_m) == (1.5, 2.25)


def test_a_single_op_is_counted():
    writer = OpWriter(classes=1)
    writer.conv("a", Tensor(INPUT, 2), 4, 3)
    assert count(writer.ops, input_shape=(5, 6, 2)) == Cost(5 * 6 * 9 * 8, 72, 4 * 30 * (2 + 4))


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("resolution", {"resolution": 0}),
        ("resolution", {"resolution": 32.0}),
        ("resolution", {"resolution": True}),
        ("resolution", {"resolution": "32"}),
        ("resolution", {"resolution": 32, "input_shape": (32, 32, 3)}),
        ("input_shape", {"input_shape": ()}),
        ("input_shape", {"input_shape": 32}),
        ("input_shape", {"input_shape": (32, 32)}),
        ("input_shape", {"input_shape": (32, -1, 3)}),
        ("input_shape", {"network": lambda: cell_network().ops()}),
        ("input_shape", {"network": lambda: cell_network().ops(), "resolution": 10}),
        ("network", {"network": []}),
        ("network", {"network": None}),
    ],
)
@pytest.mark.parametrize("function", [count, profile])
def test_impossible_images_are_refused_by_name(function, argument, arguments):
    given = {"network": cell_network} | arguments
    network = given.pop("network")
    received = re.escape(f" Received: {arguments.get(argument)!r}")
    with pytest.raises(ValueError, match=rf"^`{argument}` must be (?!None).*\.{received}$"):
        function(network() if callable(network) else network, **given)
