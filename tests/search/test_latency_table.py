"""Latency tables: sums, fits to whole networks, prediction of blocks, files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from block_tables import OVERHEAD, made_up_ms, table_of
from landscapes import tiny_space

from bignas_tf.latency_table import LatencyTable, NetworkTime, blocks_of, space_blocks
from bignas_tf.spaces import get_space
from bignas_tf.spec import NetworkSpec

SPACE = tiny_space()


@pytest.fixture(scope="module")
def table():
    return table_of(space_blocks(SPACE).values())


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
def test_whole_networks_scale_the_sum(table, networks, offset):
    def device(spec):
        return offset + 1.25 * sum(made_up_ms(b.spec) for b in blocks_of(spec).values())

    specs = [genotype.spec() for genotype in SPACE.sample(networks, seed=2)]
    measured = [NetworkTime(spec, device(spec)) for spec in specs]
    fitted = LatencyTable(table.header, table.overhead_ms, table.blocks, measured)
    assert fitted.scale == pytest.approx(1.25)
    assert fitted.offset_ms == pytest.approx(offset)
    for genotype in SPACE.sample(20, seed=3):
        assert fitted.profile(genotype.spec()) == pytest.approx(device(genotype.spec()))
    error = fitted.leave_one_out_error
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


def test_a_block_that_seems_to_take_no_time_spoils_no_prediction():
    space = get_space("cifar")
    every = list(space_blocks(space).values())
    rng = np.random.default_rng(0)
    half = table_of([every[i] for i in rng.permutation(len(every))[: len(every) // 2]])
    missing = half.missing(every)

    def error(table):
        predicted = [table.model.predict(block.spec) for block in missing]
        true = [made_up_ms(block.spec) for block in missing]
        return np.median(np.abs(np.array(predicted) / true - 1))

    without = error(half)
    for key in rng.choice(list(half.blocks), 4, replace=False):
        half.blocks[key] = dataclasses.replace(half.blocks[key], ms=0.99 * OVERHEAD)
    noisy = LatencyTable(half.header, half.overhead_ms, half.blocks)
    assert error(noisy) < without + 0.01
    assert noisy.model.left_out == 4
    assert "4 blocks that take hardly more than calling a file are left out" in noisy.summary()


def test_a_table_that_cannot_predict_goes_by_the_networks_whose_blocks_it_has():
    told, other = SPACE.smallest().spec(), SPACE.biggest().spec()
    ms = sum(made_up_ms(block.spec) for block in blocks_of(told).values())
    networks = [NetworkTime(other, 5.0), NetworkTime(told, 3 * ms)]
    small = table_of(blocks_of(told).values(), networks)
    assert small.profile(told) == pytest.approx(3 * ms)
    assert "2 whole networks\na network takes 0.0000 ms + 3.000 times" in small.summary()
    untold = table_of(blocks_of(told).values(), networks[:1])
    assert untold.profile(told) == pytest.approx(ms + OVERHEAD)
    assert untold.summary().endswith("1 whole networks")


def test_the_errors_of_a_regression_are_those_of_blocks_held_out_of_it():
    table = table_of(space_blocks(get_space("digits")).values())
    model = table.model
    assert 0 < model.error < model.worst
    assert abs(model.bias) <= model.mean < model.worst
    assert f"mean {model.mean:.1%}, bias {model.bias:+.1%}" in table.summary()


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
