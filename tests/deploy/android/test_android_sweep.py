"""Sweeps over devices: what is measured and written, and how one goes on."""

import hashlib

import pytest
from phones import rows_of

from bignas_tf.deploy.android import cooling
from bignas_tf.deploy.android.cooling import Cooling


def test_a_sweep_over_two_devices_measures_everything_and_leaves_nothing(
    phones, measure, files, tool
):
    phones.add("A1")
    phones.add("B2", properties={"ro.product.model": "Maker Tablet"})
    rows, problems, said = measure(
        backends=("cpu", "gpu"), threads=(1, 4), cores=("any", "f0"), models=files[:1]
    )
    assert problems == []
    assert len(rows) == 2 * (2 * 2 + 2)  # devices, cpu's threads x cores, gpu's cores
    for serial, name in (("A1", "Maker Phone 7"), ("B2", "Maker Tablet")):
        mine = [row for row in rows if row["serial"] == serial]
        assert {row["device"] for row in mine} == {name}
        assert len({(row["backend"], row["threads"], row["cores"]) for row in mine}) == 6
        assert phones.left(serial) == []
    [row] = [
        row
        for row in rows
        if [row[c] for c in ("serial", "file", "backend", "threads", "cores")]
        == ["A1", "s.tflite", "cpu", "4", "f0"]
    ]
    expected = {
        "status": "ok", "median_ms": "19.99", "avg_ms": "20", "std_ms": "0.012",
        "min_ms": "19.9", "max_ms": "20.3", "p5_ms": "19.9", "p95_ms": "20.3",
        "init_ms": "4.521", "first_ms": "9", "warmup_ms": "7.5", "peak_memory_mb": "12.5",
        "runs": "50", "soc": "Chips C100", "android": "14 (API 34)", "abi": "arm64-v8a",
        "governor": "schedutil+performance", "thermal_before": "0", "thermal_after": "0",
        "celsius_before": "28.5", "celsius_after": "28.5", "cooled": "yes", "message": "",
        "tool_sha256": hashlib.sha256(tool.read_bytes()).hexdigest(),
        "file_sha256": hashlib.sha256(files[0].read_bytes()).hexdigest(),
        "file_bytes": str(files[0].stat().st_size), "warmup": "3", "runs_asked": "50",
        "build": "maker/phone/7:14/ABC/1:user/release-keys",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    gpu = [row for row in rows if row["backend"] == "gpu"]
    assert {row["threads"] for row in gpu} == {"1"}
    parts = ("delegated", "delegated_nodes", "nodes", "partitions")
    assert {tuple(row[c] for c in parts) for row in gpu} == {("part", "60", "64", "3")}
    runs = phones.runs("A1")
    assert sum(line.startswith("f0 --graph=") for line in runs) == len(runs) / 2 == 3
    assert all("--num_runs=50" in line and "--warmup_runs=3" in line for line in runs)
    assert any("[12/12]" in line and "left" not in line for line in said)
    assert any(line.endswith("left") for line in said)


def test_an_interrupted_sweep_goes_on_where_it_was(phones, measure, files, tmp_path):
    phones.add("A1")
    rows, _, _ = measure(models=files)
    assert len(phones.runs("A1")) == len(rows) == 2
    assert measure(models=files)[0] == rows
    assert len(phones.runs("A1")) == 2
    path = tmp_path / "phones.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    again, _, said = measure(models=files)
    assert len(phones.runs("A1")) == 3
    assert [row["file"] for row in again] == [row["file"] for row in rows]
    assert any("[1/1]" in line for line in said)
    files[0].write_bytes(files[0].read_bytes() + b"changed")
    assert len(measure(models=files)[0]) == 3


def test_profiles_are_written_for_each_measurement(phones, measure, tmp_path):
    phones.add("A1")
    rows, _, _ = measure(profiles=tmp_path / "profiles")
    [plain, profiled] = phones.runs("A1")
    assert "profiling" not in plain and "report_peak_memory_footprint" in plain
    assert "--enable_op_profiling=true" in profiled
    operators = rows_of(tmp_path / "profiles" / rows[0]["profile"])
    assert [(row["kind"], row["ms"], row["share"]) for row in operators] == [
        ("CONV_2D", "4.0", "0.8"),
        ("DEPTHWISE_CONV_2D", "1.0", "0.2"),
    ]


def test_profiles_asked_for_later_are_made_up_for_without_measuring_again(
    phones, measure, files, tmp_path
):
    phones.add("A1", tool={"gpu": "refuses"})
    before, _, _ = measure(backends=("xnnpack", "gpu"), models=files)
    folder = tmp_path / "profiles"
    again = {"backends": ("xnnpack", "gpu"), "models": files, "profiles": folder}
    rows, problems, said = measure(**again)
    assert problems == [] and phones.left("A1") == []
    assert [{**row, "profile": ""} for row in rows] == before
    profiled = phones.runs("A1")[len(before) :]
    assert ["--enable_op_profiling=true" in line for line in profiled] == [True, True]
    made = [row["profile"] for row in rows if row["status"] == "ok"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(made)
    assert [row["profile"] for row in rows if row["status"] == "unsupported"] == ["", ""]
    assert any("[2/2]" in line and "profiled" in line for line in said)
    assert "nothing is missing" in measure(**again)[2][0]
    # One whose file is gone is missing again.
    (folder / made[0]).unlink()
    measure(**again)
    assert len(phones.runs("A1")) == len(before) + 3 and (folder / made[0]).is_file()


def test_the_tool_of_litert_is_given_its_own_flags(phones, measure, tmp_path):
    phones.add("A1", form="litert")
    rows, _, _ = measure(
        backends=("cpu", "xnnpack", "gpu", "nnapi"), profiles=tmp_path / "profiles"
    )
    found = {row["backend"]: (row["status"], row["message"]) for row in rows}
    assert found == {
        "cpu": ("unsupported", "the tool has no --use_xnnpack"),
        "xnnpack": ("ok", ""),
        "gpu": ("ok", ""),
        "nnapi": ("unsupported", "the tool has no --use_nnapi"),
    }
    assert not any("use_xnnpack" in line for line in phones.runs("A1"))
    assert sum("--use_profiler=true" in line for line in phones.runs("A1")) == 2


def test_a_warm_device_cools_down_first(phones, measure, monkeypatch):
    monkeypatch.setattr(cooling, "_POLL", 0.01)
    phones.add("A1", warms=2)
    rows, _, _ = measure(threads=(1, 2), cooling=Cooling(pause=0, limit=60.0))
    # Throttled by 2 after a run, and a step cooler each time it is asked: still too warm.
    assert [row["thermal_after"] for row in rows] == ["2", "2"]
    assert [(row["thermal_before"], row["cooled"]) for row in rows] == [("0", "yes"), ("0", "yes")]
    phones.change("A1", warms=9)
    rows, _, _ = measure(threads=(4, 8), cooling=Cooling(pause=0, limit=0.0))
    assert (rows[3]["thermal_before"], rows[3]["cooled"]) == ("8", "no")


def test_a_sweep_goes_on_only_when_a_device_is_as_cool_as_before_the_first_call(
    phones, measure, monkeypatch
):
    monkeypatch.setattr(cooling, "_POLL", 0.01)
    phones.add("A1", warms=3)
    rows, _, _ = measure()
    assert (rows[0]["thermal_reference"], rows[0]["celsius_reference"]) == ("0", "28.5")
    assert rows[0]["thermal_after"] == "3"
    waits, waits_not = (Cooling(pause=0, limit=limit) for limit in (60.0, 0.0))
    rows, _, _ = measure(threads=(1, 2), cooling=waits)
    assert (rows[1]["thermal_before"], rows[1]["cooled"]) == ("0", "yes")
    rows, _, _ = measure(retry=("ok",), cooling=waits_not)  # the first row, measured again
    assert (rows[0]["thermal_before"], rows[0]["cooled"]) == ("2", "no")
    rows, _, _ = measure(threads=(4,), cooling=waits)
    assert [(row["thermal_before"], row["cooled"]) for row in rows[1:]] == [("0", "yes")] * 2
    phones.add("B2")
    (phones.home / "B2" / "thermal").write_text("1")  # another device has a reference of its own
    rows, _, _ = measure()
    assert [row["thermal_reference"] for row in rows] == ["0", "0", "0", "1"]


def test_a_reference_that_is_no_number_is_refused(phones, measure, tmp_path):
    phones.add("A1")
    measure()
    path = tmp_path / "phones.csv"
    path.write_text(path.read_text().replace(",0,28.5,", ",0,warm,"))
    with pytest.raises(ValueError, match="`celsius_reference`. Received: '0' and 'warm'"):
        measure(threads=(2,))
    assert phones.left("A1") == []


def test_serial_numbers_can_be_kept_out(phones, measure, tmp_path):
    phones.add("A1")
    measure(hash_serial=True)
    text = (tmp_path / "phones.csv").read_text()
    assert "A1" not in text
    assert hashlib.sha256(b"A1").hexdigest()[:12] in text
