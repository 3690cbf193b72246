"""Processes that train, and what they leave in their folders; for tests."""

import json
import os
import socket
import subprocess  # noqa: S404 - starts this package's own processes
import sys
import time
from pathlib import Path

import numpy as np

from bignas_tf.training.checkpoints import CheckpointManager, read_checkpoint

WORKER = Path(__file__).with_name("layout_worker.py")
LIMIT = 3600  # seconds, of a busy machine
# The same threads everywhere: another number changes the last bits.
THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "2"}


def launch(command, log, **environment):
    """A process whose output is appended to a file, its attribute `log`."""
    with log.open("a") as file:
        process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, *map(str, command)],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment,
        )
    process.log = log
    return process


def bignas_train(workdir, *flags, index=0, **environment):
    """`bignas train` of the digits in a process of its own."""
    command = ["-m", "bignas_tf.cli", "train", "--recipe=digits", f"--workdir={workdir}"]
    log = workdir.with_name(f"{workdir.name}.{index}.log")
    return launch([*command, *flags], log, **THREADS, **environment)


def bignas_train_workers(workdir, data, *flags):
    """The same by workers, each with images of its own."""
    cluster = _addresses(len(data))
    return [
        bignas_train(
            workdir,
            "--strategy=multi_worker",
            f"--data={each}",
            *flags,
            index=index,
            TF_CONFIG=_configuration(cluster, index),
        )
        for index, each in enumerate(data)
    ]


def _configuration(cluster, index):
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(cluster)}, "task": task})


def start(workdir, cluster=(), index=0, **settings):
    """A worker that trains the tiny run of `layout_worker.py` in `workdir`."""
    environment = {"TF_CONFIG": _configuration(cluster, index)} if cluster else {}
    arguments = json.dumps({"workdir": str(workdir), **settings})
    log = workdir.with_name(f"{workdir.name}.{index}.log")
    return launch([WORKER, arguments], log, **environment)


def start_workers(workdir, count, **settings):
    cluster = _addresses(count)
    arguments = {"strategy": "multi_worker", **settings}
    return [start(workdir, cluster, index, **arguments) for index in range(count)]


def _addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def finished(*processes):
    codes = [process.wait(LIMIT) for process in processes]
    for process, code in zip(processes, codes, strict=True):
        assert code == 0, process.log.read_text()[-3000:]


def wait_until(done, *processes):
    """Waits for `done()` while all processes run."""
    end = time.monotonic() + LIMIT
    while not done():
        for process in processes:
            assert process.poll() is None, process.log.read_text()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.02)


def logged(workdir):
    """Lines of log.jsonl, which a run that resumes first shortens to its checkpoint."""
    log = workdir / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def wait_for_steps(workdir, steps, *processes):
    wait_until(lambda: logged(workdir) >= steps, *processes)


def checkpoint(workdir, step):
    return workdir / "checkpoints" / f"step_{step:08d}.safetensors"


def final_step(workdir):
    return CheckpointManager(workdir / "checkpoints").restore_latest().step


def records(workdir):
    """The lines of log.jsonl but for what depends on the clock."""
    lines = map(json.loads, (workdir / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def curve(workdir):
    """Losses of the logged steps, `(steps, terms + 1)`."""
    lines = [line for line in records(workdir) if "loss" in line]
    names = sorted({name for line in lines for name in line if name.startswith("loss")})
    return np.asarray([[line[name] for name in names] for line in lines])


def accuracies(workdir):
    """The evaluations: step and accuracies, `(evaluations, 3)`."""
    names = ("step", "accuracy/biggest", "accuracy/smallest")
    lines = [line for line in records(workdir) if names[1] in line]
    return np.asarray([[line[name] for name in names] for line in lines])


def assert_same_weights(workdir, other):
    """Requires the newest checkpoints to be alike bit for bit."""
    managers = [CheckpointManager(each / "checkpoints") for each in (workdir, other)]
    paths = [manager.latest() for manager in managers]
    assert paths[0].name == paths[1].name
    arrays, expected = (read_checkpoint(path)[0] for path in paths)
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
