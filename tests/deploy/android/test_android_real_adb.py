"""The real adb, against a device of the tests' own that runs the files with LiteRT."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from adbd import Adbd
from phones import native_program, userland

from bignas_tf.deploy.latency import measure

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not shutil.which("adb"), reason="adb is not installed (apt install adb)"),
]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def adb(tmp_path):
    """Runs adb with a server and keys of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "ANDROID_ADB_SERVER_PORT": port,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }

    def run(*command, meanwhile=None):
        with subprocess.Popen(  # noqa: S603 - adb and our own script
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            found = [meanwhile(process)] if meanwhile else []
            said, words = process.communicate(timeout=300)
        return process.returncode, said, words, *found

    subprocess.run(  # noqa: S603 - its server must not hold our pipes
        [shutil.which("adb"), "start-server"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    yield run
    run("adb", "kill-server")


@pytest.fixture
def phone(tmp_path, adb, monkeypatch):
    """Makes connected devices."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the tool
    started = []

    def make(name, **faults):
        root = tmp_path / name
        userland(root, {"ro.product.cpu.abilist": "x86_64", "ro.product.model": name})
        device = Adbd(root, **faults)
        started.append(device)
        adb("adb", "connect", device.serial)
        return device

    yield make
    for device in started:
        device.close()


@pytest.fixture
def benchmark(adb, tmp_path, float_file):
    """Runs the script: exit status, the CSV's rows, stdout and stderr."""
    tool = native_program(tmp_path / "benchmark_model", "x86_64")
    output = tmp_path / "phones.csv"

    def run(*flags, **options):
        script = str(ROOT / "export" / "benchmark_android.py")
        arguments = [f"--model={float_file}", f"--benchmark_model={tool}", f"--csv={output}"]
        command = (sys.executable, script, *arguments, "--pause=0", *flags)
        status, *said = adb(*command, **options)
        rows = list(csv.DictReader(output.read_text().splitlines())) if output.exists() else []
        return status, rows, *said

    return run


def left(device):
    return os.listdir(device.root / "data/local/tmp")


def test_files_are_measured_on_two_devices(phone, benchmark, float_file, tmp_path):
    devices = [phone("one"), phone("two")]
    profiles = tmp_path / "profiles"
    flags = ("--backends=cpu,xnnpack,gpu,nnapi", "--cores=any,1", f"--profiles={profiles}")
    status, rows, said, words = benchmark(*flags)
    assert (status, words) == (0, ""), said
    assert len(rows) == 2 * 4 * 2
    found = {(row["backend"], row["status"]) for row in rows}
    assert found == {
        ("cpu", "ok"), ("xnnpack", "ok"), ("gpu", "unsupported"), ("nnapi", "unsupported"),
    }  # fmt: skip
    for device in devices:
        assert left(device) == []
        assert {row["serial"] for row in rows} >= {device.serial}
        assert any("taskset 1 " in command for command in device.commands)
    [here] = measure([float_file], runs=50, rounds=1, delegate="none", progress=False)
    for row in rows:
        if row["status"] != "ok":
            continue
        figures = [float(row[f"{name}_ms"]) for name in ("min", "p5", "median", "p95", "max")]
        assert figures == sorted(figures)
        assert row["runs"] == "50"
        if row["backend"] == "cpu":  # the same machine: of the same size at least
            assert here.median_ms / 20 < float(row["median_ms"]) < here.median_ms * 20
        kinds = {
            operator["kind"]
            for operator in csv.DictReader((profiles / row["profile"]).read_text().splitlines())
        }
        assert ("CONV_2D" in kinds) == (row["backend"] == "cpu")
    before = len(devices[0].commands)
    assert benchmark(*flags)[1] == rows
    assert not any("--graph" in command for command in devices[0].commands[before:])


def test_a_cable_that_is_pulled_ends_its_device_alone(phone, benchmark):
    lost, kept = phone("lost", unplugged_by="--num_threads=2"), phone("kept")
    status, rows, said, words = benchmark("--threads=1,2")
    assert status == 1
    assert [row["serial"] for row in rows].count(kept.serial) == 2
    assert [row["serial"] for row in rows].count(lost.serial) == 1
    assert lost.serial in words and words.count("\n") == 1
    assert "could not be removed" in said
    assert left(kept) == []


def test_a_full_device_is_said_to_be_full(phone, benchmark):
    device = phone("full", full=".tflite")
    status, rows, _, words = benchmark()
    assert (status, [row["status"] for row in rows]) == (1, ["no_space"])
    assert "no measurement has figures: 1 no_space" in words
    assert left(device) == []


def test_a_device_that_does_not_let_us_in_is_named(phone, benchmark):
    device = phone("closed", authorized=False)
    status, rows, _, words = benchmark()
    assert (status, rows) == (1, [])
    assert words.startswith(f"error: {device.serial} is ")
    assert "authori" in words and "unlock it and accept" in words


@pytest.mark.usefixtures("heeding_signals")
def test_ctrl_c_ends_the_tool_on_the_device_and_removes_what_was_pushed(phone, benchmark):
    device = phone("interrupted")

    def interrupt(process):
        wait_for((device.root / "measuring").exists)
        [path] = device.root.glob("data/local/tmp/*/pid")
        number = path.read_text().strip()
        assert b"--graph" in Path(f"/proc/{number}/cmdline").read_bytes()
        process.send_signal(signal.SIGINT)
        return number

    status, rows, said, words, number = benchmark("--runs=100000000", meanwhile=interrupt)
    assert (status, rows) == (130, [])
    assert "interrupted" in words and "removing what was pushed" in said
    assert left(device) == []
    assert wait_for(lambda: not Path(f"/proc/{number}/cmdline").exists())


def wait_for(condition):
    for _ in range(300):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in 30 s")
