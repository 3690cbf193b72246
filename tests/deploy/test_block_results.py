"""Latency tables from a phone's CSV, and the command that makes tables."""

from __future__ import annotations

import shutil
import types

import pytest
from block_case import SPACE

from bignas_tf.commands import latency_table as command
from bignas_tf.deploy.android.plan import model_files
from bignas_tf.deploy.android.results import COLUMNS, Results
from bignas_tf.deploy.block_latency.android import table_from_csv
from bignas_tf.deploy.block_latency.files import read_index
from bignas_tf.deploy.block_latency.host import TablePlan
from bignas_tf.latency_table import LatencyTable, blocks_of, space_blocks


@pytest.fixture
def phone(monkeypatch, tmp_path):
    """Files of a table, and what a phone that does not exist measured of them."""
    monkeypatch.setattr(
        "bignas_tf.deploy.block_latency.files.content",
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
    if not any(each.startswith("--from_csv") for each in argv):
        argv = (f"--space={space.name}", *argv)
    with mock.patch("bignas_tf.spaces.get_space", lambda name, classes: space):
        command.main(parser.parse_args(argv))


def test_a_phones_csv_makes_a_table(phone, capsys):
    phone.measure()
    output = phone.path / "phone.json"
    argv = (f"--from_csv={phone.csv}", f"--blocks_dir={phone.folder}", f"--output={output}")
    with pytest.raises(ValueError, match="`networks` must be left out with `from_csv`"):
        call(*argv, "--networks=4")
    call(*argv)
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


def test_of_files_measured_again_with_another_tool_the_latest_times_and_that_tool_count(phone):
    phone.measure()
    again = {"tool_sha256": "d", "build": "e", "date": "2026-01-03T03:04:05+00:00"}
    phone.measure(lambda row: row | {"median_ms": "9.0"}, **again)
    table = table_from_csv(phone.csv, phone.folder)
    assert {block.ms for block in table.blocks.values()} == {9.0}
    conditions = table.header["conditions"]
    assert (conditions["tool_sha256"], conditions["build"]) == ("d", "e")
    assert conditions["date"] == f"{again['date']} to {again['date']}"
    rows = phone.csv.read_text().splitlines(keepends=True)
    phone.csv.write_text("".join(rows[:-1]))  # as if the second sweep was stopped
    with pytest.raises(ValueError, match="file measured with one `build`. Received: .'b', 'e'"):
        table_from_csv(phone.csv, phone.folder)


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
    message = (
        f"`folder` must be a new one for this table; {phone.folder} has .*'seed': 0.*'seed': 1"
    )
    with pytest.raises(ValueError, match=message):
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
