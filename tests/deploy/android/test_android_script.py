"""`export/benchmark_android.py`, and the devices that it can use."""

import os
import signal
import subprocess
import sys
import time

import pytest
from phones import ended, rows_of

from bignas_tf.deploy.android.adb import Adb, AdbError, usable
from bignas_tf.files import only_writer


def script(phones, files, tool, *flags):
    path = os.path.join(os.path.dirname(__file__), "../../../export/benchmark_android.py")
    arguments = [f"--model={files[0]}", f"--benchmark_model={tool}", f"--adb={phones.adb}"]
    return [sys.executable, path, *arguments, *flags]


@pytest.mark.usefixtures("heeding_signals")
def test_ctrl_c_removes_what_was_pushed_and_ends_the_tool(phones, files, tool, tmp_path):
    phones.add("A1", tool={"gpu": "hangs"})
    output = tmp_path / "a.csv"
    command = script(phones, files, tool, "--backends=xnnpack,gpu", "--pause=0", f"--csv={output}")
    with subprocess.Popen(  # noqa: S603 - our own script
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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


def test_retry_measures_again_what_is_not_ok(phones, measure, files, tool, tmp_path):
    phones.add("A1")
    measure(threads=(1, 2))
    output = tmp_path / "phones.csv"
    output.write_text(output.read_text().replace(",2,any,ok,", ",2,any,wrong_abi,"))
    assert [row["status"] for row in rows_of(output)] == ["ok", "wrong_abi"]
    flags = ("--warmup=3", "--threads=1,2", "--pause=0", "--retry", f"--csv={output}")
    done = run(script(phones, files, tool, *flags))
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows_of(output)] == ["ok", "ok"]
    assert ["num_threads=2" in line for line in phones.runs("A1")] == [False, True, True]


def test_a_csv_that_another_sweep_writes_is_refused(phones, files, tool, tmp_path):
    phones.add("A1")
    output = tmp_path / "a.csv"
    with only_writer(output, "written", tmp_path / ".a.csv.lock", "csv"):
        done = run(script(phones, files, tool, f"--csv={output}"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: `csv` must be written by one process. Received: ")
    assert not output.exists()


def test_the_script_ends_with_one_line_where_no_device_can_be_used(phones, files, tool, tmp_path):
    phones.add("B2", state="unauthorized")
    done = run(script(phones, files, tool, f"--csv={tmp_path / 'a.csv'}"))
    assert done.returncode == 1
    assert done.stderr == (
        "error: B2 is unauthorized: unlock it and accept its question about USB debugging\n"
    )


def test_a_flag_of_cooling_that_is_wrong_is_named_as_it_was_given(phones, files, tool, tmp_path):
    done = run(script(phones, files, tool, "--cool_limit=-1", f"--csv={tmp_path / 'a.csv'}"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: flag --cool_limit=-1: ")


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
