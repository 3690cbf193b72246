"""Latency tables: the blocks of spaces, sums, calibration, prediction, and searches with them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from landscapes import noisy, tiny_space

from bignas_tf import cost
from bignas_tf.blocks import Block, ConvBlock, HeadBlock, MBConvBlock
from bignas_tf.latency_table import (
    BlockTime,
    LatencyTable,
    NetworkTime,
    blocks_of,
    space_blocks,
)
from bignas_tf.search import Budget, TabularEvaluator, check_feasible, parse_budgets
from bignas_tf.search.latency import check_coverage, latency_from
from bignas_tf.search.run_search import SearchOptions, search_run
from bignas_tf.spaces import get_space
from bignas_tf.spec import NetworkSpec

SPACE = tiny_space()
OVERHEAD = 0.004


def made_up_ms(spec):
    """What a block takes on a device that does not exist: some of each, kernels dearer."""
    kernel = getattr(spec.blocks[0], "kernel_size", 1)
    return 0.01 + cost.count(spec).mmacs * (1 + 0.1 * kernel)


def table_of(singles, networks=(), time=made_up_ms):
    blocks = {b.key: BlockTime(b.label, b.spec, time(b.spec) + OVERHEAD, 0.01) for b in singles}
    header = {"space": "tiny", "quantization": "float32", "threads": 1, "seed": 0}
    return LatencyTable(header, OVERHEAD, blocks, networks)


@pytest.fixture(scope="module")
def table():
    return table_of(space_blocks(SPACE).values())


def test_the_distinct_blocks_of_bignas_are_as_many_as_its_table_of_choices_says():
    # By hand, of the space's table: widths before x widths x kernels for each first block,
    # widths x kernels for the others; the heads are last widths x head widths.
    stages = 2 * 2 + 2, 2 * 2 + 2, (2 * 2 + 2) * 2, (2 * 2 + 2) * 2
    stages += (2 * 3 + 3) * 2, (3 * 4 + 4) * 2, (4 * 5 + 5) * 2
    space = get_space("bignas")
    found = space_blocks(space, [224])
    assert len(found) == 2 + sum(stages) + 5 * 17
    kinds = [block.spec.blocks[0].type for block in found.values()]
    assert (kinds.count("conv"), kinds.count("head")) == (2, 5 * 17)
    for genotype in space.sample(30, seed=3, restrict={"resolution": (224,)}):
        assert all(block.key in found for block in blocks_of(genotype.spec()).values())


@pytest.mark.parametrize("space", [get_space("cifar"), SPACE])
def test_every_block_of_random_networks_is_among_those_of_the_space(space):
    known = space_blocks(space)
    for genotype in [space.smallest(), space.biggest(), *space.sample(60, seed=3)]:
        assert all(block.key in known for block in blocks_of(genotype.spec()).values())


def test_the_blocks_of_some_resolutions_are_those_of_their_networks_alone():
    known = space_blocks(SPACE, [6])
    sample = SPACE.sample(40, seed=0)
    by_resolution = {6: set(), 8: set()}
    for genotype in sample:
        keys = {block.key for block in blocks_of(genotype.spec()).values()}
        by_resolution[genotype["resolution"]] |= keys
    assert by_resolution[6] <= set(known)
    assert set(known) | set(space_blocks(SPACE, [8])) == set(space_blocks(SPACE))
    for resolutions in ([], [7], [6, 7]):
        with pytest.raises(ValueError, match=r"`resolutions` must be among \(6, 8\). Received"):
            space_blocks(SPACE, resolutions)


def key(block, shape=(8, 8, 16), classes=10, after=()):
    return blocks_of(NetworkSpec(shape, (*after, block), classes))[block.name].key


def test_blocks_that_take_the_same_time_have_one_key():
    block = MBConvBlock(name="a", channels=16, expand_ratio=2)
    same = [
        dataclasses.replace(block, name="b"),
        dataclasses.replace(block, shortcut="projection"),  # an identity here
        dataclasses.replace(block, expand_ratio=None, expanded_channels=32),
    ]
    assert {key(other) for other in same} == {key(block)}
    assert key(block, classes=5) == key(block)
    head = HeadBlock(name="head", channels=8)
    assert key(head) == key(dataclasses.replace(head, dropout=0.5))


def test_blocks_that_need_not_take_the_same_time_have_different_keys():
    block = MBConvBlock(name="a", channels=16, expand_ratio=2)
    others = [
        dataclasses.replace(block, **change)
        for change in (
            {"channels": 24}, {"kernel_size": 5}, {"strides": 2}, {"expand_ratio": 3},
            {"activation": "relu"}, {"shortcut": "none"}, {"shortcut": "projection_always"},
        )
    ]  # fmt: skip
    head = HeadBlock(name="head", channels=8)
    keys = [*map(key, [block, *others, head]), key(block, (8, 9, 16)), key(block, (8, 8, 24))]
    keys += [key(head, classes=5), key(dataclasses.replace(head, channels=None))]
    assert len(set(keys)) == len(keys)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SumBlock(Block):
    """The sum of two blocks."""

    type = "sum"
    arity = 2

    def ops(self, writer, *inputs):
        return writer.add("add", *inputs)


def test_a_block_reads_whichever_block_it_names_but_no_two():
    stem = ConvBlock(name="stem", channels=8)
    side = ConvBlock(name="side", channels=16, strides=2)
    last = ConvBlock(name="last", channels=8, inputs=("stem",))
    found = blocks_of(NetworkSpec((8, 8, 3), (stem, side, last), 10))
    assert found["last"].spec.input_shape == (8, 8, 8)
    blocks = (stem, last, SumBlock(name="sum", inputs=("stem", "last")))
    with pytest.raises(ValueError, match="`spec` must be a network whose blocks have one input"):
        blocks_of(NetworkSpec((8, 8, 3), blocks, 10))


def test_a_network_takes_the_sum_of_its_blocks_and_one_call(table):
    for genotype in SPACE.sample(20, seed=1):
        spec = genotype.spec()
        singles = [NetworkSpec(b.spec.input_shape, b.spec.blocks, b.spec.classes)
                   for b in blocks_of(spec).values()]  # fmt: skip
        expected = OVERHEAD + sum(map(made_up_ms, singles))
        assert table.profile(spec) == pytest.approx(expected)
        assert sum(table.times(spec).values()) + table.offset_ms == pytest.approx(expected)
        assert list(table.times(spec)) == [block.name for block in spec.blocks]


@pytest.mark.parametrize(("networks", "offset"), [(8, 0.3), (3, 0.0)])
def test_whole_networks_calibrate_the_sum(table, networks, offset):
    def device(spec):
        return offset + 1.25 * sum(made_up_ms(b.spec) for b in blocks_of(spec).values())

    specs = [genotype.spec() for genotype in SPACE.sample(networks, seed=2)]
    measured = [NetworkTime(spec, device(spec)) for spec in specs]
    calibrated = LatencyTable(table.header, table.overhead_ms, table.blocks, measured)
    assert calibrated.scale == pytest.approx(1.25)
    assert calibrated.offset_ms == pytest.approx(offset)
    for genotype in SPACE.sample(20, seed=3):
        assert calibrated.profile(genotype.spec()) == pytest.approx(device(genotype.spec()))
    error = calibrated.calibration_error
    assert error == (None if networks == 3 else pytest.approx(0, abs=1e-9))


def test_missing_blocks_are_predicted_about_as_well_as_the_table_says():
    space = get_space("cifar")
    every = list(space_blocks(space).values())
    order = np.random.default_rng(0).permutation(len(every))
    half = table_of([every[i] for i in order[: len(every) // 2]])
    missing = half.missing(every)
    assert len(missing) == len(every) - len(half.blocks) > 40
    errors = [abs(half.model.predict(block.spec) / made_up_ms(block.spec) - 1) for block in missing]
    assert np.median(errors) < 0.1
    assert np.median(errors) < 2.5 * half.model.error
    assert half.profile(space.biggest().spec()) == pytest.approx(
        table_of(every).profile(space.biggest().spec()), rel=0.1
    )


def test_a_small_table_does_not_guess():
    every = list(space_blocks(SPACE).values())
    small = table_of(every[:10])
    with pytest.raises(ValueError, match="`latency_table` must have every block of the network"):
        small.profile(SPACE.biggest().spec())
    with pytest.raises(ValueError, match=f"a table of the {len(every)} blocks of space 'tiny'"):
        check_coverage(small, SPACE)
    assert check_coverage(table_of(every), SPACE) is None
    note = check_coverage(table_of(every[:-4]), SPACE)
    assert note.startswith(f"4 of {len(every)} blocks of space 'tiny' are not in the latency table")


def test_a_table_is_the_same_after_a_trip_through_its_file(table, tmp_path):
    path = tmp_path / "table.json"
    networks = [NetworkTime(genotype.spec(), 0.1 + i, 0.02)
                for i, genotype in enumerate(SPACE.sample(5, seed=0))]  # fmt: skip
    before = LatencyTable(table.header, table.overhead_ms, table.blocks, networks)
    before.write(path)
    after = LatencyTable.read(path)
    assert (after.header, after.blocks, after.networks) == (
        before.header, before.blocks, before.networks,
    )  # fmt: skip
    assert after.digest == before.digest != table.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("format"),
        lambda content: content.pop("networks"),
        lambda content: content["blocks"][0].pop("ms"),
        lambda content: content["blocks"][0].update(ms=0),
        lambda content: content["blocks"][0].update(ms="fast"),
        lambda content: content.update(overhead_ms=-1),
    ],
)
def test_a_damaged_table_is_refused(table, tmp_path, change):
    path = tmp_path / "table.json"
    table.write(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="`latency_table` must be |`ms` must be"):
        LatencyTable.read(path)


def test_latency_is_a_metric_where_a_table_is_open(table):
    (budget,) = parse_budgets("latency_ms:0.5+mmacs:0.1")
    smallest = SPACE.smallest()
    with pytest.raises(ValueError, match="`latency_table` or `device` must be given for latency"):
        check_feasible(budget, SPACE)
    with latency_from(table):
        assert budget.costs(smallest)["latency_ms"] == table.profile(smallest.spec())
        other = table_of(space_blocks(SPACE).values(), time=lambda spec: 2 * made_up_ms(spec))
        with latency_from(other):
            assert budget.costs(smallest)["latency_ms"] == other.profile(smallest.spec())
        assert budget.costs(smallest)["latency_ms"] == table.profile(smallest.spec())
    with pytest.raises(ValueError, match="`latency_table` or `device` must be given for latency"):
        budget.cost(smallest)


def test_a_latency_budget_that_nothing_meets_is_refused_with_the_least(table):
    least = min(table.profile(genotype.spec()) for genotype in SPACE.all_genotypes())
    with latency_from(table):
        check_feasible(Budget("latency_ms", least), SPACE)
        with pytest.raises(ValueError) as error:
            check_feasible(Budget("latency_ms", least * 0.9), SPACE)
    assert f"at least {least:.2f}"[:-1] in str(error.value) and " ms, " in str(error.value)


class Run:
    """A trained run, as far as a search with made-up accuracies needs it."""

    def __init__(self):
        supernet = types.SimpleNamespace(space=SPACE, weight_arrays=lambda: {"a": np.zeros(3)})
        self.trained = types.SimpleNamespace(supernet=supernet, path=Path("step.safetensors"))

    def search(self, workdir, **options):
        given = {"fine_candidates": 4, "fine_rounds": 1, **options}
        return search_run(
            self.trained,
            types.SimpleNamespace(held_out=range(10)),
            SearchOptions(**given),
            workdir,
            evaluator=TabularEvaluator(noisy),
        )


def test_a_search_under_latency_finds_children_that_meet_it(table, tmp_path):
    path = tmp_path / "table.json"
    table.write(path)
    chosen = Run().search(
        tmp_path,
        budget="latency_ms:0.2,0.3",
        latency_table=str(path),
        strategy="evolution",
        evaluations=20,
        population=10,
    )
    for limit, entry in zip((0.2, 0.3), chosen, strict=True):
        spec = SPACE.genotype(entry["genotype"]).spec()
        singles = blocks_of(spec).values()
        ms = OVERHEAD + sum(made_up_ms(block.spec) for block in singles)
        assert entry["latency_ms"] == pytest.approx(ms)
        assert ms <= limit
        assert entry["budget"] == {"latency_ms": limit}
    assert chosen[0]["accuracy"] <= chosen[1]["accuracy"]


def test_a_device_instead_of_a_table_is_measured_first_into_the_runs_folder(
    table, tmp_path, monkeypatch
):
    from bignas_tf.deploy import block_latency

    asked = []

    def measure_table(plan, output):
        asked.append((plan.space, plan.resolutions, plan.quantization, plan.threads, output))
        return table

    monkeypatch.setattr(block_latency, "measure_table", measure_table)
    options = {"device": "host", "quantization": "int8", "latency_threads": 2, "fine_rounds": 0}
    (chosen,) = Run().search(tmp_path, budget="latency_ms:0.3+mmacs:0.2", **options)
    assert asked == [(SPACE, None, "int8", 2, tmp_path / "latency_table.json")]
    spec = SPACE.genotype(chosen["genotype"]).spec()
    assert chosen["latency_ms"] == table.profile(spec) <= 0.3
    assert chosen["mmacs"] == cost.count(spec).mmacs <= 0.2
    assert chosen["name"] == "latency_ms_0.3_mmacs_0.2"


def test_a_search_does_not_go_on_with_another_table(table, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    table.write(first)
    table_of(space_blocks(SPACE).values(), time=lambda s: 1.1 * made_up_ms(s)).write(second)
    options = {"budget": "latency_ms:0.3", "fine_rounds": 0}
    Run().search(tmp_path, latency_table=str(first), **options)
    Run().search(tmp_path, latency_table=str(first), **options)
    with pytest.raises(ValueError, match="made with another checkpoint or latency table"):
        Run().search(tmp_path, latency_table=str(second), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`latency_table` or `device` must be given for latency_ms. Received: neither"),
        ({"device": "phone"}, "`device` must be one of host. Received: 'phone'"),
        (
            {"device": "host", "latency_table": "a"},
            "`device` must be left out with `latency_table`",
        ),
        ({"latency_table": "missing.json"}, "missing.json"),
    ],
)
def test_a_search_refuses_latency_that_nothing_tells(options, message):
    with pytest.raises((ValueError, OSError), match=message):
        SearchOptions("latency_ms:3", **options)


def test_latency_is_looked_up_without_tensorflow(tmp_path):
    path = tmp_path / "table.json"
    table_of(space_blocks(get_space("digits")).values()).write(path)
    code = (
        "import sys; from bignas_tf.search.run_search import SearchOptions;"
        "from bignas_tf.search.latency import latency_from;"
        "from bignas_tf.spaces import get_space; from bignas_tf.search import measure;"
        f"o = SearchOptions('latency_ms:3', latency_table={str(path)!r});"
        "t = o.open_table(get_space('digits'), None);"
        "\nwith latency_from(t): print(measure(get_space('digits').smallest(), 'latency_ms'))"
        "\nprint([name for name in ('tensorflow', 'keras', 'jax') if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_show_adds_milliseconds_of_each_block(table, tmp_path, capsys):
    from bignas_tf.commands import show

    space = get_space("digits")
    every = list(space_blocks(space).values())
    stem = blocks_of(space.smallest().spec())["stem"]
    path = tmp_path / "table.json"
    table_of([block for block in every if block.key != stem.key]).write(path)
    arguments = types.SimpleNamespace(
        model=None, space="digits", genotype="smallest", resolution=None, latency_table=str(path)
    )
    show.main(arguments)
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    written = LatencyTable.read(path)
    spec = space.smallest().spec()
    for name, ms in written.times(spec).items():
        assert lines[name][-1] == f"{ms:.4f}" + "*" * (name == "stem")
    assert lines["total"][-1] == f"{written.profile(spec):.4f}"
    assert lines["*:"][1:3] == ["not", "in"]
    arguments.genotype = None
    with pytest.raises(ValueError, match="`genotype` or `model` must be given with `latency_tabl"):
        show.main(arguments)


def test_a_label_says_what_a_block_is():
    block = ConvBlock(name="stem", channels=8, strides=2)
    (single,) = blocks_of(NetworkSpec((9, 8, 3), (block,), 10)).values()
    assert single.label == "conv 9x8x3 to 5x4x8, kernel 3, stride 2"
