"""`bignas select` with many workers, for real: a trained run, processes, TensorFlow."""

import json
import os
import socket
import subprocess
import sys

import pytest

BIGNAS = (sys.executable, "-m", "bignas_tf.cli")
SELECT = (
    "--budget=mmacs:0.3,0.8",
    "--names=s,m",
    "--strategy=coarse_to_fine",
    "--fine_candidates=3",
    "--fine_rounds=1",
    "--threads=1",
)
TRAIN = (
    "--recipe=digits",
    "--set=epochs=1",
    "--set=batch_size=200",
    "--set=held_out=200",
    "--set=calibration_images=64",
    '--set=schedule={"kind": "cosine", "initial": 0.1}',
)


def bignas(*arguments, environ=None):
    command = [*BIGNAS, *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | (environ or {}))  # noqa: S603 - ours


def done(*arguments):
    assert bignas(*arguments).wait() == 0


def contents(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run and the search of one process in it."""
    workdir = tmp_path_factory.mktemp("run")
    done("train", *TRAIN, f"--workdir={workdir}")
    done("select", *SELECT, f"--workdir={workdir}")
    return workdir, contents(workdir / "select")


@pytest.mark.long
def test_two_workers_find_what_one_process_does_to_the_last_digit(run):
    workdir, alone = run
    done("select", *SELECT, f"--workdir={workdir}", "--workers=2", "--overwrite")
    assert contents(workdir / "select") == alone


@pytest.mark.long
def test_a_chief_and_workers_started_by_hand_find_it_too(run):
    workdir, alone = run
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    arguments = ("select", f"--workdir={workdir}", "--threads=1")
    processes = [
        bignas(*arguments, "--role=worker", environ=where | {"KERASTUNER_TUNER_ID": name})
        for name in ("here", "there")
    ]
    processes.append(bignas(*arguments, *SELECT, "--role=chief", "--overwrite", environ=where))
    try:
        assert [process.wait() for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
    found, expected = contents(workdir / "select"), dict(alone)
    began, known = (json.loads(files.pop("weights.json")) for files in (found, expected))
    assert found == expected
    # How many threads workers of other machines have their chief cannot know.
    assert began == known | {"conditions": known["conditions"] | {"threads": None}}
