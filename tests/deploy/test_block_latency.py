"""Latency tables, measured on this machine: turns, batches, plans and stops."""

from __future__ import annotations

import time

import numpy as np
import pytest
from block_case import SPACE

from bignas_tf.deploy.block_latency import files, host
from bignas_tf.deploy.block_latency.files import NOTHING, content
from bignas_tf.deploy.block_latency.host import TablePlan, measure_table
from bignas_tf.deploy.block_latency.worker import Turns
from bignas_tf.latency_table import LatencyTable, space_blocks
from bignas_tf.spaces import get_space

PLAN = TablePlan(SPACE, resolutions=(8,), networks=2)


@pytest.fixture(scope="module")
def nothing():
    return content(NOTHING, "float32", 0)


@pytest.fixture
def one_file(nothing, monkeypatch):
    """All files are the same, valid one: conversions take seconds. Gives what was converted."""
    converted = []

    def quick(spec, quantization, seed):
        converted.append(spec)
        return nothing

    monkeypatch.setattr(files, "content", quick)
    return converted


class Stopped(BaseException):
    """Like Ctrl-C."""


def test_each_round_times_every_file_as_often_as_asked(nothing, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.tflite").write_bytes(nothing)
    turns = Turns(str(tmp_path), 1, "xnnpack")
    durations = turns.round(warmup=1, runs=3)
    assert len(durations) == 2 * 3
    assert all(duration > 0 for duration in durations)
    assert turns.parts == 2
    assert Turns(str(tmp_path), 1, "none").parts == 0


def test_files_are_timed_by_the_clock_and_statistic_that_the_header_names(nothing, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.tflite").write_bytes(nothing)
    times = host.timed_files(tmp_path, 1)
    assert {name: found.shape for name, found in times.items()} == {
        f"{name}.tflite": (host.ROUNDS, host.RUNS) for name in "ab"
    }
    assert host.lower_quartile(np.array([[4.0, 1.0], [3.0, 2.0], [9.0, 5.0]])) == 2.25
    clocks = [Turns(str(tmp_path), threads, "xnnpack")._clock for threads in (1, 2)]
    assert clocks == [time.thread_time_ns, time.perf_counter_ns]
    assert [host.clock(threads) for threads in (1, 2)] == [
        "CPU time of the thread", "time",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_measured_table_knows_every_block_and_the_networks_of_the_plan(tmp_path):
    path = tmp_path / "table.json"
    table = measure_table(PLAN, path, progress=False)
    assert table.blocks.keys() == space_blocks(SPACE, [8]).keys()
    assert [network.spec for network in sorted(table.networks, key=lambda n: repr(n.spec))] == (
        sorted(PLAN.drawn_networks().values(), key=repr)
    )
    assert all(block.ms > 0 and block.spread >= 0 for block in table.blocks.values())
    smallest, biggest = (g.replace(resolution=8) for g in (SPACE.smallest(), SPACE.biggest()))
    assert 0 < table.profile(smallest.spec()) < 10
    conditions = table.header["conditions"]
    assert conditions["cpu"] and conditions["ai_edge_litert"] and conditions["date"]
    expected = {"space": "one_stage", "resolutions": [8], "quantization": "float32", "threads": 1}
    expected |= {"clock": "CPU time of the thread", "statistic": "lower quartile"}
    assert expected.items() <= table.header.items()
    assert not list(tmp_path.glob("*.files"))
    assert table.profile(biggest.spec()) == LatencyTable.read(path).profile(biggest.spec())


def test_a_stopped_table_goes_on_with_what_is_missing(one_file, tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    monkeypatch.setattr(host, "BATCH", 3)
    quick = files.content

    def stopped(*arguments):
        if len(one_file) == 7:  # overhead, anchors, a batch, and one file of the next
            raise Stopped
        return quick(*arguments)

    monkeypatch.setattr(files, "content", stopped)
    with pytest.raises(Stopped):
        measure_table(PLAN, path, progress=False)
    before = LatencyTable.read(path)
    assert len(before.blocks) + len(before.networks) == 3
    monkeypatch.setattr(files, "content", quick)
    table = measure_table(PLAN, path, progress=False)
    assert table.blocks.keys() == space_blocks(SPACE, [8]).keys()
    assert len(table.networks) == 2
    kept = {key: table.blocks[key] for key in before.blocks}
    assert kept == before.blocks
    everything = len(table.blocks) + len(table.networks)
    assert len(one_file) == 3 + everything  # each once, and the anchors for all batches
    one_file.clear()
    again = measure_table(PLAN, path, progress=False)
    assert (again.blocks, one_file) == (table.blocks, [])


def test_a_table_of_another_plan_is_neither_mixed_nor_lost(one_file, tmp_path):
    path = tmp_path / "table.json"
    measure_table(PLAN, path, progress=False)
    before = path.read_bytes()
    other = TablePlan(SPACE, resolutions=(8,), networks=2, threads=2)
    with pytest.raises(ValueError, match="`output` must be a new file, or the table with {'threa"):
        measure_table(other, path, progress=False)
    assert path.read_bytes() == before
    assert measure_table(other, path, overwrite=True, progress=False).header["threads"] == 2


def test_a_machine_that_gets_slower_changes_no_time(one_file, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "BATCH", 3)
    batches = []

    def timed(folder, anchors, batch, header, update):
        (folder / "batch").mkdir(parents=True, exist_ok=True)
        batches.append(batch)
        slow = len(batches)  # twice as slow in the second batch, and so on
        macs = {network.file: host._macs(network) for network in (*anchors, *batch)}
        return {file: np.full((6, 5), slow * count / 1e3) for file, count in macs.items()}

    monkeypatch.setattr(host, "_timed", timed)
    table = measure_table(PLAN, tmp_path / "table.json", progress=False)
    assert len(batches) > 2
    for block in table.blocks.values():
        assert block.ms == pytest.approx(host.cost.count(block.spec).macs / 1e3)


def test_drawn_blocks_are_of_every_kind_and_the_same_again():
    space = get_space("cifar")
    plan = TablePlan(space, blocks=30, seed=4)
    drawn = plan.drawn_blocks()
    every = space_blocks(space)
    assert len({block.key for block in drawn}) == 30
    assert {block.key for block in drawn} <= set(every)
    assert {block.spec.blocks[0].type for block in drawn} == {"conv", "mbconv", "head"}
    assert len(TablePlan(space, blocks=20).drawn_blocks()) == 20
    assert drawn == TablePlan(space, blocks=30, seed=4).drawn_blocks()
    assert drawn != TablePlan(space, blocks=30, seed=5).drawn_blocks()
    macs = [host.cost.count(s).macs for s in TablePlan(space).drawn_networks().values()]
    assert macs[-1] > 2.5 * macs[0]


def test_a_plan_of_too_few_blocks_to_predict_others_is_refused_before_any_is_measured(tmp_path):
    count = len(space_blocks(get_space("cifar")))
    message = f"`blocks` must be at least 20, to predict .* or left out for all {count}. Rec.*: 19"
    with pytest.raises(ValueError, match=message):
        measure_table(TablePlan(get_space("cifar"), blocks=19), tmp_path / "table.json")
    assert not list(tmp_path.iterdir())
    few = TablePlan(SPACE, resolutions=(8,), blocks=19)
    assert len(few.drawn_blocks()) == len(space_blocks(SPACE, [8])) < 20  # all there are


@pytest.mark.parametrize(
    "change",
    [{"quantization": "qat_int8"}, {"threads": 0}, {"blocks": 0}, {"networks": -1}, {"seed": -1}],
)
def test_an_impossible_plan_is_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        TablePlan(SPACE, **change)
