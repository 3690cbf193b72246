"""Runs of several processes, and processes that are killed: `make test-long`."""

import json
import os
import random
import signal
import socket
import subprocess  # noqa: S404 - starts this package's own processes
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bignas_tf.training.checkpoints import CheckpointManager, read_checkpoint

pytestmark = pytest.mark.long
WORKER = Path(__file__).with_name("layout_worker.py")
LIMIT = 900  # seconds


def start(workdir, cluster=(), index=0, **settings):
    """A process that trains in `workdir`; its output goes to a file beside it."""
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    if cluster:
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": list(cluster)}, "task": task}
        environment["TF_CONFIG"] = json.dumps(config)
    log = workdir.with_name(f"{workdir.name}.{index}.log")
    arguments = json.dumps({"workdir": str(workdir), **settings})
    with log.open("a") as file:
        process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, str(WORKER), arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    process.log = log
    return process


def addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def start_workers(workdir, count, **settings):
    cluster = addresses(count)
    arguments = {"strategy": "multi_worker", **settings}
    return [start(workdir, cluster, index, **arguments) for index in range(count)]


def finished(*processes):
    codes = [process.wait(LIMIT) for process in processes]
    for process, code in zip(processes, codes, strict=True):
        assert code == 0, process.log.read_text()[-3000:]


def curve(workdir):
    lines = (workdir / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    names = sorted({name for record in records for name in record if name.startswith("loss")})
    found = [[record[name] for name in names] for record in records if "loss" in record]
    return np.asarray(found)


def final_arrays(workdir):
    (path,) = sorted((workdir / "checkpoints").glob("*.safetensors"))[-1:]
    return read_checkpoint(path)[0]


def steps_done(workdir):
    log = workdir / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for_steps(workdir, steps, *processes):
    end = time.monotonic() + LIMIT
    while steps_done(workdir) < steps:
        for process in processes:
            assert process.poll() is None, process.log.read_text()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "run"
    finished(start(workdir, strategy="one_device"))
    assert curve(workdir).shape[0] == 20
    return workdir


@pytest.mark.parametrize(
    "name, settings",
    [
        ("mirrored", {"strategy": "mirrored", "replicas": 2}),
        ("three_replicas", {"strategy": "mirrored", "replicas": 3}),
        ("masked", {"strategy": "mirrored", "replicas": 2, "varying": "masked"}),
        ("calls_of_steps", {"strategy": "one_device", "steps_per_call": 8}),
        ("xla", {"strategy": "one_device", "varying": "masked", "jit_compile": True}),
    ],
)
def test_every_layout_of_one_process_has_the_same_loss_curve(one_device, tmp_path, name, settings):
    finished(start(tmp_path / name, **settings))
    np.testing.assert_allclose(curve(tmp_path / name), curve(one_device), atol=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_workers_have_the_loss_curve_of_one_device(one_device, tmp_path, count):
    finished(*start_workers(tmp_path / "workers", count))
    np.testing.assert_allclose(curve(tmp_path / "workers"), curve(one_device), atol=1e-5)


def test_replicas_that_normalize_alone_have_another_curve(one_device, tmp_path):
    settings = {"strategy": "mirrored", "replicas": 2, "synchronized": False}
    finished(start(tmp_path / "run", **settings))
    assert np.abs(curve(tmp_path / "run") - curve(one_device)).max() > 1e-3


def test_a_run_killed_ten_times_ends_bit_for_bit_as_the_uninterrupted_one(tmp_path):
    recipe = {"epochs": 6, "evaluate_every": 0}  # 120 steps, a checkpoint every 20
    finished(start(tmp_path / "whole", strategy="one_device", recipe=recipe))
    draw = random.Random(0)  # noqa: S311 - moments of a test
    killed = tmp_path / "killed"
    for kill in range(10):
        process = start(killed, strategy="one_device", recipe=recipe)
        # Steps after the newest checkpoint are repeated: beyond it, or it would never end.
        wait_for_steps(killed, min(119, 11 * (kill + 1)), process)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished(start(killed, strategy="one_device", recipe=recipe))
    whole, resumed = final_arrays(tmp_path / "whole"), final_arrays(killed)
    assert whole.keys() == resumed.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    np.testing.assert_array_equal(curve(killed), curve(tmp_path / "whole"))


def test_sigterm_saves_and_exits_with_0(tmp_path):
    process = start(tmp_path / "run", strategy="one_device", recipe={"epochs": 50})
    wait_for_steps(tmp_path / "run", 25, process)
    process.send_signal(signal.SIGTERM)
    finished(process)
    assert final_step(tmp_path / "run") == len(curve(tmp_path / "run")) >= 25


def test_a_worker_asked_to_stop_stops_the_others_after_the_same_step(tmp_path):
    workdir = tmp_path / "run"
    workers = start_workers(workdir, 2, recipe={"epochs": 50})
    wait_for_steps(workdir, 5, *workers)
    workers[1].send_signal(signal.SIGTERM)
    finished(*workers)
    step = len(curve(workdir))
    assert step < 1000
    assert final_step(workdir) == step
    assert all(f"trained {step}" in worker.log.read_text() for worker in workers)


def final_step(workdir):
    return CheckpointManager(workdir / "checkpoints").restore_latest().step


@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_loses_the_other_saves_says_why_and_both_go_on(tmp_path, victim):
    recipe = {"epochs": 3, "evaluate_every": 0}
    finished(start(tmp_path / "whole", strategy="one_device", recipe=recipe))
    workdir = tmp_path / "run"
    workers = start_workers(workdir, 2, recipe=recipe)
    wait_for_steps(workdir, 25, *workers)
    workers[victim].send_signal(signal.SIGKILL)
    workers[victim].wait()
    survivor = workers[1 - victim]
    assert survivor.wait(LIMIT) != 0
    assert "Another worker was lost after step" in survivor.log.read_text()
    step = final_step(workdir)
    assert step >= 20
    finished(*start_workers(workdir, 2, recipe=recipe))
    assert final_step(workdir) == 60
    np.testing.assert_allclose(curve(workdir), curve(tmp_path / "whole"), atol=1e-5)
