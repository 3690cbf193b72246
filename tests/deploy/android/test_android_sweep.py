import csv
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest
from phones import native_program

from bignas_tf.deploy.android import cooling
from bignas_tf.deploy.android.adb import Adb, AdbError, usable
from bignas_tf.deploy.android.cooling import Cooling
from bignas_tf.deploy.android.plan import Plan, model_files, tool_file
from bignas_tf.deploy.android.progress import Progress
from bignas_tf.deploy.android.results import Results
from bignas_tf.deploy.android.sweep import sweep
from bignas_tf.deploy.android.tool import configurations


@pytest.fixture
def measure(phones, files, tool, tmp_path):
    """Runs a sweep in this process: its rows, its problems and what it said."""

    def run(backends=("xnnpack",), threads=(1,), cores=("any",), models=files[:1], **plan):
        program, abi = tool_file(plan.pop("tool", tool))
        retry = plan.pop("retry", ())
        plan = Plan(
            tool=program,
            abi=abi,
            files=model_files(models),
            configurations=tuple(configurations(backends, threads, cores)),
            **{"cooling": Cooling(pause=0), "warmup": 3, **plan},
        )
        said = []
        devices, _ = usable(Adb(str(phones.adb)))
        results = Results(tmp_path / "phones.csv", retry)
        problems = sweep(devices, plan, results, Progress(said.append))
        return rows_of(tmp_path / "phones.csv"), problems, said

    return run


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


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


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("crashes", "crashed", "signal 11 (SIGSEGV); last words: "),
        ("refuses", "unsupported", "ERROR: Failed to apply GPU delegate."),
        ("falls_back", "fell_back", "the gpu delegate took nothing; 5.000 ms are not its own"),
        ("says_nothing", "unconfirmed", "does not say that the gpu delegate ran"),
        ("breaks_off", "unreadable", "no figures; last words: Explicitly applied GPU"),
    ],
)
def test_a_configuration_that_fails_is_a_row_and_the_sweep_goes_on(
    fault, status, message, phones, measure
):
    phones.add("A1", tool={"gpu": fault})
    rows, problems, said = measure(backends=("gpu", "xnnpack"))
    assert problems == []
    assert [row["status"] for row in rows] == [status, "ok"]
    assert message in rows[0]["message"]
    assert bool(rows[0]["avg_ms"]) == (status == "unconfirmed")
    assert any(status in line for line in said)
    assert phones.left("A1") == []


def test_what_failed_is_measured_again_on_request_only(phones, measure):
    phones.add("A1", tool={"gpu": "crashes"})
    assert [row["status"] for row in measure(backends=("gpu",))[0]] == ["crashed"]
    phones.change("A1")
    assert [row["status"] for row in measure(backends=("gpu",))[0]] == ["crashed"]
    rows, _, _ = measure(backends=("gpu",), retry=("crashed",))
    assert [row["status"] for row in rows] == ["ok"]


def test_a_tool_that_hangs_is_ended_on_the_device(phones, measure):
    phones.add("A1", tool={"gpu": "hangs"})
    rows, problems, _ = measure(backends=("gpu", "xnnpack"), seconds=3.0)
    assert [row["status"] for row in rows] == ["timed_out", "ok"]
    assert rows[0]["message"] == "no answer after 3 s"
    assert problems == []
    assert ended(phones, "A1")


def ended(phones, serial):
    number = int((phones.home / serial / "hanging").read_text())
    for _ in range(50):
        try:
            os.kill(number, 0)
            if open(f"/proc/{number}/stat").read().split()[2] == "Z":
                return True  # its parent died before it
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


def test_a_lost_device_ends_alone(phones, measure):
    phones.add("A1", lost_in_tool=True)
    phones.add("B2")
    rows, [problem], said = measure(threads=(1, 2))
    assert [row["serial"] for row in rows] == ["B2"] * 2
    assert "device A1 is offline: plug it in again" in problem
    assert any("could not be removed" in line and "A1" in line for line in said)
    assert phones.left("B2") == []
    phones.change("A1")
    phones.add("C3")
    rows, problems, _ = measure(threads=(1, 2))
    assert (len(rows), problems) == (6, [])


@pytest.mark.parametrize(
    ("after", "words", "message"),
    [
        (1, "adb: device 'A1' not found", "is gone"),
        (3, "error: closed", "is gone"),
        (7, "", "is gone (connection closed)"),
        (8, "error: device unauthorized.", "unlock it and accept"),
        (9, "error: protocol fault (couldn't read status): Success", "is gone"),
    ],
)
def test_a_device_may_go_at_any_command(after, words, message, phones, measure):
    phones.add("A1", lost_after=after, lost_words=words)
    rows, [problem], _ = measure(threads=(1, 2))
    assert message in problem
    assert rows == []


def test_a_device_that_is_lost_before_it_begins_does_not_stop_the_others(phones, measure):
    phones.add("A1", lost_after=1, lost_words="adb: device 'A1' not found")
    phones.add("B2")
    rows, [problem], _ = measure(threads=(1, 2, 4))
    assert "A1" in problem and "is gone" in problem
    assert [(row["serial"], row["status"]) for row in rows] == [("B2", "ok")] * 3


def test_a_tool_for_other_processors_is_refused(phones, measure, tmp_path):
    phones.add("A1", properties={"ro.product.cpu.abilist": "x86_64"})
    phones.add("B2", tool="wrong_abi")
    rows, problems, _ = measure()
    assert rows == []
    assert any("A1) runs x86_64; the tool" in p and "is for arm64-v8a" in p for p in problems)
    assert any("B2) cannot run" in p and "not executable: 64-bit ELF file" in p for p in problems)
    assert phones.left("B2") == phones.left("A1") == []
    rows, problems, _ = measure(tool=native_program(tmp_path / "other", "x86_64"))
    assert [row["serial"] for row in rows] == ["A1"]


def test_a_full_device_is_said_to_be_full(phones, measure, files):
    phones.add("A1", full="s.tflite")
    rows, problems, _ = measure(models=files)
    assert [(row["file"], row["status"]) for row in rows] == [
        ("s.tflite", "no_space"),
        ("m.tflite", "ok"),
    ]
    assert problems == []
    phones.change("A1", full="benchmark_model")
    _, [problem], _ = measure(threads=(2,))
    assert "no space left on device A1" in problem
    phones.change("A1", truncates=True)
    _, [problem], _ = measure(threads=(2,))
    assert "benchmark_model: 10 of 120 bytes" in problem
    assert phones.left("A1") == []


def test_a_shell_that_hands_no_status_on_tells_of_a_crash_all_the_same(phones, measure):
    phones.add("A1", tool={"xnnpack": "crashes"}, old_shell=True)
    rows, _, _ = measure()
    assert rows[0]["status"] == "crashed"


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


def test_serial_numbers_can_be_kept_out(phones, measure, tmp_path):
    phones.add("A1")
    measure(hash_serial=True)
    text = (tmp_path / "phones.csv").read_text()
    assert "A1" not in text
    assert hashlib.sha256(b"A1").hexdigest()[:12] in text


def test_a_result_that_cannot_be_written_ends_the_sweep_clean(phones, measure, monkeypatch):
    phones.add("A1")

    def full(self, row):
        raise OSError(28, "No space left on device", "phones.csv")

    monkeypatch.setattr(Results, "add", full)
    with pytest.raises(OSError, match="No space left"):
        measure()
    assert phones.left("A1") == []


def script(phones, files, tool, *flags):
    path = os.path.join(os.path.dirname(__file__), "../../../export/benchmark_android.py")
    arguments = [f"--model={files[0]}", f"--benchmark_model={tool}", f"--adb={phones.adb}"]
    return [sys.executable, path, *arguments, *flags]


def test_ctrl_c_removes_what_was_pushed_and_ends_the_tool(phones, files, tool, tmp_path):
    phones.add("A1", tool={"gpu": "hangs"})
    output = tmp_path / "a.csv"
    command = script(phones, files, tool, "--backends=xnnpack,gpu", "--pause=0", f"--csv={output}")
    with subprocess.Popen(  # noqa: S603 - our own script
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(600):
            if (phones.home / "A1" / "hanging").exists():
                break
            time.sleep(0.05)
        assert phones.left("A1") != []
        process.send_signal(signal.SIGINT)
        said, words = process.communicate(timeout=30)
    assert process.returncode == 130
    assert words == f"error: interrupted; {output} holds what was measured\n"
    assert "ending: removing what was pushed" in said
    assert "could not be removed" not in said
    assert phones.left("A1") == []
    assert ended(phones, "A1")
    assert [row["backend"] for row in rows_of(output)] == ["xnnpack"]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60)  # noqa: S603


def test_a_dry_run_prints_the_plan_and_touches_no_device(phones, files, tool, tmp_path):
    phones.add("A1")
    phones.add("B2", state="unauthorized")
    flags = ("--dry_run", "--threads=1,4", f"--csv={tmp_path / 'a.csv'}")
    done = run(script(phones, files, tool, *flags))
    assert done.returncode == 0, done.stderr
    for line in (
        "configuration xnnpack 4 threads",
        "2 measurements a device",
        "device A1",
        "left out: B2 is unauthorized: unlock it",
    ):
        assert line in done.stdout
    assert not (phones.home / "A1" / "log").exists()
    assert not (tmp_path / "a.csv").exists()


def test_the_script_ends_with_one_line_where_no_device_can_be_used(phones, files, tool, tmp_path):
    phones.add("B2", state="unauthorized")
    done = run(script(phones, files, tool, f"--csv={tmp_path / 'a.csv'}"))
    assert done.returncode == 1
    assert done.stderr == (
        "error: B2 is unauthorized: unlock it and accept its question about USB debugging\n"
    )


@pytest.mark.parametrize(
    ("states", "serials", "message"),
    [
        ({}, [], "no device: connect one, with USB debugging on"),
        ({"A1": "offline"}, [], "A1 is offline: plug it in again"),
        ({"A1": "offline", "B2": "unauthorized"}, [], "A1 is offline: .*; B2 is unauthorized"),
        ({"A1": "device", "B2": "offline"}, ["B2"], "device B2 is offline"),
        ({"A1": "device"}, ["C3"], r"`serials` must be connected \(A1\). Received: C3"),
        ({"A1": "no permissions (user in plugdev group)"}, [], "udev"),
        ({"A1": "recovery"}, [], "A1 is recovery"),
        ({"A1": "authorizing"}, [], "A1 is authorizing: unlock it"),
    ],
)
def test_devices_that_cannot_be_used_are_named(states, serials, message, phones):
    for serial, state in states.items():
        phones.add(serial, state=state)
    with pytest.raises(AdbError, match=message):
        usable(Adb(str(phones.adb)), serials)


def test_a_missing_adb_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AdbError, match="there is no program 'adb'. adb comes with Android's"):
        Adb()
