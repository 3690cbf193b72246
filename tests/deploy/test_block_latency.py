"""Latency tables, measured: files of blocks, turns, batches, stops, and Android's CSV."""

from __future__ import annotations

import shutil
import time
import types

import numpy as np
import pytest

from bignas_tf.blocks import MBConvBlock, SqueezeExcitation
from bignas_tf.commands import latency_table as command
from bignas_tf.deploy import block_files, block_latency
from bignas_tf.deploy.android.plan import model_files
from bignas_tf.deploy.android.results import COLUMNS, Results
from bignas_tf.deploy.block_files import NOTHING, content, read_index
from bignas_tf.deploy.block_latency import TablePlan, measure_table
from bignas_tf.deploy.block_results import table_from_csv
from bignas_tf.deploy.block_worker import Turns
from bignas_tf.deploy.converter import flatbuffer
from bignas_tf.deploy.interpreter import load_interpreter, predict
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.file_size import QUANTIZATIONS, file_size_mb
from bignas_tf.latency_table import LatencyTable, blocks_of, space_blocks
from bignas_tf.spaces import MBConvSpace, Stage, get_space
from bignas_tf.spec import NetworkSpec

SPACE = MBConvSpace(
    name="one_stage",
    resolution_choices=(6, 8),
    stem_widths=(8,),
    stem_strides=1,
    stages=(Stage((8, 16), (1, 2), (3,), (2,), 1),),
    head_widths=(16, 24),
    classes=10,
    input_channels=1,
)
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

    monkeypatch.setattr(block_files, "content", quick)
    return converted


class Stopped(BaseException):
    """Like Ctrl-C."""


def test_a_file_of_constants_computes_what_that_of_a_saved_model_does(tmp_path):
    from bignas_tf.child import build_child

    block = MBConvBlock(name="block", channels=16, expand_ratio=2, se=SqueezeExcitation())
    spec = NetworkSpec((6, 6, 8), (block,), 1)
    model = build_child(spec, seed=3)
    for layer in model.layers:
        if hasattr(layer, "gamma"):
            layer.gamma.assign(np.ones(layer.gamma.shape))
    images = np.random.default_rng(0).normal(size=(3, 6, 6, 8)).astype("float32")
    outputs, operators = [], []
    slow = flatbuffer(model, SCHEMES[Quantization.FLOAT32])
    for name, data in (("slow", slow), ("quick", content(spec, "float32", seed=3))):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(data)
        interpreter = load_interpreter(path)
        outputs.append(predict(interpreter, images))
        operators.append([op["op_name"] for op in interpreter._get_ops_details()])
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_allclose(outputs[0], model.predict_on_batch(images), atol=1e-5)
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
    from bignas_tf.child import build_child

    space = get_space(name)
    genotypes = [space.smallest(), space.biggest(), *space.sample(drawn, seed=3)]
    rng = np.random.Generator(np.random.Philox(0))
    for genotype in genotypes[: drawn + 2 if drawn else 1]:
        model = build_child(genotype.spec(), seed=0)
        for variable in model.weights:  # weights of one value would share their bytes
            positive = variable.name == "moving_variance"
            draw = rng.uniform(0.5, 1.5, variable.shape) if positive else None
            variable.assign(rng.normal(size=variable.shape) if draw is None else draw)
        images = rng.standard_normal((4, *genotype.spec().input_shape), np.float32)
        for quantization in quantizations:
            scheme = SCHEMES[Quantization(quantization)]
            size = len(flatbuffer(model, scheme, images if scheme.calibrated else None)) / 1e6
            assert file_size_mb(genotype.spec(), quantization) == pytest.approx(size, rel=0.02)


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
    times = block_latency.timed_files(tmp_path, 1)
    assert {name: found.shape for name, found in times.items()} == {
        f"{name}.tflite": (block_latency.ROUNDS, block_latency.RUNS) for name in "ab"
    }
    assert block_latency.lower_quartile(np.array([[4.0, 1.0], [3.0, 2.0], [9.0, 5.0]])) == 2.25
    clocks = [Turns(str(tmp_path), threads, "xnnpack")._clock for threads in (1, 2)]
    assert clocks == [time.thread_time_ns, time.perf_counter_ns]
    assert [block_latency.clock(threads) for threads in (1, 2)] == [
        "CPU time of the thread", "time",
    ]  # fmt: skip


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
    monkeypatch.setattr(block_latency, "BATCH", 3)
    quick = block_files.content

    def stopped(*arguments):
        if len(one_file) == 7:  # overhead, anchors, a batch, and one file of the next
            raise Stopped
        return quick(*arguments)

    monkeypatch.setattr(block_files, "content", stopped)
    with pytest.raises(Stopped):
        measure_table(PLAN, path, progress=False)
    before = LatencyTable.read(path)
    assert len(before.blocks) + len(before.networks) == 3
    monkeypatch.setattr(block_files, "content", quick)
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
    monkeypatch.setattr(block_latency, "BATCH", 3)
    batches = []

    def timed(folder, anchors, batch, header, update):
        (folder / "batch").mkdir(parents=True, exist_ok=True)
        batches.append(batch)
        slow = len(batches)  # twice as slow in the second batch, and so on
        macs = {network.file: block_latency._macs(network) for network in (*anchors, *batch)}
        return {file: np.full((6, 5), slow * count / 1e3) for file, count in macs.items()}

    monkeypatch.setattr(block_latency, "_timed", timed)
    table = measure_table(PLAN, tmp_path / "table.json", progress=False)
    assert len(batches) > 2
    for block in table.blocks.values():
        assert block.ms == pytest.approx(block_latency.cost.count(block.spec).macs / 1e3)


def test_drawn_blocks_are_of_every_kind_and_the_same_again():
    space = get_space("cifar")
    plan = TablePlan(space, blocks=30, seed=4)
    drawn = plan.drawn_blocks()
    every = space_blocks(space)
    assert len({block.key for block in drawn}) == 30
    assert {block.key for block in drawn} <= set(every)
    assert {block.spec.blocks[0].type for block in drawn} == {"conv", "mbconv", "head"}
    assert len(TablePlan(space, blocks=3).drawn_blocks()) == 3
    with pytest.raises(ValueError, match="`blocks` must be at least 3, one of each kind"):
        TablePlan(space, blocks=2).drawn_blocks()
    assert drawn == TablePlan(space, blocks=30, seed=4).drawn_blocks()
    assert drawn != TablePlan(space, blocks=30, seed=5).drawn_blocks()
    macs = [block_latency.cost.count(s).macs for s in TablePlan(space).drawn_networks().values()]
    assert macs[-1] > 2.5 * macs[0]


@pytest.mark.parametrize(
    "change",
    [{"quantization": "qat_int8"}, {"threads": 0}, {"blocks": 0}, {"networks": -1}, {"seed": -1}],
)
def test_an_impossible_plan_is_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        TablePlan(SPACE, **change)


@pytest.fixture
def phone(monkeypatch, tmp_path):
    """Files of a table, and what a phone that does not exist measured of them."""
    monkeypatch.setattr(
        block_files,
        "content",
        lambda spec, quantization, seed: b"....TFL3" + repr(spec).encode(),
    )
    folder = tmp_path / "blocks"
    call(f"--files_only={folder}", space=SPACE)
    phone = types.SimpleNamespace(folder=folder, csv=tmp_path / "phones.csv", path=tmp_path)
    pushed = model_files(sorted(folder.glob("*.tflite")))  # as benchmark_android.py reads them
    files = {row["file"]: row for row in read_index(folder)["files"]}
    phone.ms = {
        name: round(0.02 + len(row["spec"]["blocks"]) + i / 100, 4)
        for i, (name, row) in enumerate(sorted(files.items()))
    } | {"overhead_call.tflite": 0.005}

    def measure(change=lambda row: row, **columns):
        results = Results(phone.csv)
        for file in pushed:
            ms = phone.ms[file.path.name]
            row = dict.fromkeys(COLUMNS, "") | {
                "file": file.path.name, "file_sha256": file.sha256, "status": "ok",
                "median_ms": f"{ms:.4f}", "avg_ms": f"{2 * ms:.4f}", "threads": "4",
                "backend": "xnnpack", "cores": "f0", "device": "Maker Phone 7", "serial": "1",
                "android": "14", "date": "2026-01-02T03:04:05+00:00", "warmup": "10",
                "runs_asked": "50", "build": "b", "tool_sha256": "c", **columns,
            }  # fmt: skip
            results.add(change(row))

    phone.measure = measure
    return phone


def call(*argv, space=SPACE):
    import argparse
    from unittest import mock

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with mock.patch("bignas_tf.spaces.get_space", lambda name, classes: space):
        command.main(parser.parse_args([f"--space={space.name}", *argv]))


def test_a_phones_csv_makes_a_table(phone, capsys):
    phone.measure()
    output = phone.path / "phone.json"
    call(f"--from_csv={phone.csv}", f"--blocks_dir={phone.folder}", f"--output={output}")
    table = LatencyTable.read(output)
    assert table.blocks.keys() == space_blocks(SPACE).keys()
    drawn = TablePlan(SPACE).drawn_networks().values()
    assert sorted(map(repr, drawn)) == sorted(repr(network.spec) for network in table.networks)
    assert len(table.networks) > 2
    for key, block in table.blocks.items():
        assert block.ms == phone.ms[f"block_{key}.tflite"]
    assert table.overhead_ms == phone.ms["overhead_call.tflite"]
    assert (table.header["device"], table.header["threads"]) == ("Maker Phone 7", 4)
    assert table.header["conditions"]["backend"] == "xnnpack"
    spec = SPACE.smallest().spec()
    blocks = [phone.ms[f"block_{b.key}.tflite"] for b in blocks_of(spec).values()]
    expected = table.offset_ms + table.scale * sum(ms - table.overhead_ms for ms in blocks)
    assert table.profile(spec) == pytest.approx(expected)
    assert f"written to {output}" in capsys.readouterr().out


def test_a_csv_of_several_configurations_needs_a_choice(phone):
    phone.measure()
    phone.measure(backend="gpu", median_ms="9.0")
    phone.measure(device="Other", serial="2", median_ms="7.0")
    with pytest.raises(ValueError, match="`device` must be given, one of Maker Phone 7, Other"):
        table_from_csv(phone.csv, phone.folder)
    with pytest.raises(ValueError, match="`backend` must be given, one of gpu, xnnpack"):
        table_from_csv(phone.csv, phone.folder, device="Maker Phone 7")
    table = table_from_csv(phone.csv, phone.folder, device="Maker Phone 7", backend="gpu")
    assert {block.ms for block in table.blocks.values()} == {9.0}
    assert {b.ms for b in table_from_csv(phone.csv, phone.folder, serial="2").blocks.values()} == {
        7.0
    }


def test_a_failed_measurement_is_no_block_and_a_missing_median_means_the_mean(phone):
    (first, *_) = (row for row in read_index(phone.folder)["files"] if row["kind"] == "block")

    def change(row):
        failed = row["file"] == first["file"]
        return row | {"median_ms": ""} | ({"status": "crashed", "avg_ms": ""} if failed else {})

    phone.measure(change)
    table = table_from_csv(phone.csv, phone.folder)
    assert table.blocks.keys() == space_blocks(SPACE).keys() - {first["key"]}
    for key, block in table.blocks.items():
        assert block.ms == pytest.approx(2 * phone.ms[f"block_{key}.tflite"])
    assert (table.header["clock"], table.header["statistic"]) == ("time", "mean")


def test_times_too_coarse_for_blocks_make_no_table(phone):
    def coarse(row):
        return row | {"median_ms": "0.00" if row["file"].startswith("block") else "0.52"}

    phone.measure(coarse)
    output = phone.path / "phone.json"
    with pytest.raises(ValueError, match="`csv` must be of a tool that prints more decimals"):
        call(f"--from_csv={phone.csv}", f"--blocks_dir={phone.folder}", f"--output={output}")
    assert not output.exists()
    phone.csv.unlink()
    phone.measure(lambda row: row | {"median_ms": "fast"})
    with pytest.raises(ValueError, match="`csv` must be with milliseconds in `median_ms`"):
        table_from_csv(phone.csv, phone.folder)


def test_files_of_another_table_and_other_csvs_are_refused(phone):
    phone.csv.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="`csv` must be one of export/benchmark_android.py"):
        table_from_csv(phone.csv, phone.folder)
    phone.csv.unlink()
    phone.measure(status="crashed")
    with pytest.raises(ValueError, match="`csv` must be with measured files of kind 'overhead'"):
        table_from_csv(phone.csv, phone.folder)
    with pytest.raises(ValueError, match="`folder` must be of "):
        call(f"--files_only={phone.folder}", "--seed=1")
    shutil.rmtree(phone.folder)
    with pytest.raises(FileNotFoundError):
        table_from_csv(phone.csv, phone.folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`output` must be given"),
        (["--files_only=a", "--from_csv=b"], "`from_csv` must be given without `files_only`"),
        (["--output=a", "--from_csv=b"], "`blocks_dir` must be given with `from_csv`"),
        (["--output=a", "--blocks_dir=b"], "`blocks_dir` must be given only with `from_csv`"),
        (["--output=a", "--cores=f0"], "`cores` must be given only with `from_csv`"),
        (["--output=a", "--device=phone"], "`device` must be one of host"),
        (["--output=a", "--resolutions=8,x"], "`resolutions` must be pixels, such as 192,224"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        call(*arguments)
