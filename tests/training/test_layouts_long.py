"""The same run on every layout, in processes of its own: `make test-long`."""

import json
import re
import signal

import numpy as np
import pytest
from run_processes import (
    LIMIT,
    bignas_train,
    bignas_train_workers,
    curve,
    final_step,
    finished,
    start,
    start_workers,
    wait_for_steps,
)

from bignas_tf.training.checkpoints import CheckpointManager

pytestmark = pytest.mark.long


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


def test_workers_clip_the_gradient_of_all_of_them(one_device, tmp_path):
    recipe = {"clip_norm": 0.01}
    finished(start(tmp_path / "one", strategy="one_device", recipe=recipe))
    finished(*start_workers(tmp_path / "two", 2, recipe=recipe))
    clipped = curve(tmp_path / "one")
    np.testing.assert_allclose(curve(tmp_path / "two"), clipped, atol=1e-5)
    assert np.abs(clipped - curve(one_device)).max() > 1e-3


@pytest.mark.parametrize("replicas", [1, 2])
def test_half_precision_has_nearly_the_loss_curve_of_full_precision(one_device, tmp_path, replicas):
    settings = {"strategy": "mirrored", "replicas": replicas, "recipe": {"precision": "bfloat16"}}
    finished(start(tmp_path / "run", **settings))
    apart = np.abs(curve(tmp_path / "run") - curve(one_device))
    assert 1e-4 < apart.max() < 0.1
    assert apart[0].max() < 0.02


def test_replicas_that_normalize_alone_have_another_curve(one_device, tmp_path):
    settings = {"strategy": "mirrored", "replicas": 2, "synchronized": False}
    finished(start(tmp_path / "run", **settings))
    assert np.abs(curve(tmp_path / "run") - curve(one_device)).max() > 1e-3


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


FEW = (
    "--set=epochs=2",
    "--set=batch_size=96",
    "--set=held_out=1150",  # 288 are left: 3 steps an epoch
    "--set=calibration_images=64",
    "--set=evaluate_every=1",
    "--set=random_children=0",
)


def last_line(process):
    return process.log.read_text().splitlines()[-1]


def test_the_command_trains_with_two_workers_as_it_does_alone(tmp_path):
    finished(bignas_train(tmp_path / "one", *FEW))
    workers = bignas_train_workers(tmp_path / "two", ["digits", "digits"], *FEW)
    finished(*workers)
    newest = CheckpointManager(tmp_path / "two" / "checkpoints").latest()
    assert last_line(workers[0]) == f"trained 6 steps; checkpoint {newest}"
    assert last_line(workers[1]) == "trained 6 steps; worker 0 saves"
    assert curve(tmp_path / "two").shape == (1, 3)  # of the last step
    np.testing.assert_allclose(curve(tmp_path / "two"), curve(tmp_path / "one"), atol=1e-4)
    assert final_step(tmp_path / "two") == 6
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert (record["loop"]["workers"], record["loop"]["replicas"]) == (2, 2)


@pytest.mark.parametrize("without", [0, 1])
def test_workers_of_which_one_finds_no_data_end_with_a_line_each(tmp_path, without):
    data = ["digits", "digits"]
    data[without] = f"folder:{tmp_path / 'nothing'}"
    workers = bignas_train_workers(tmp_path / "run", data, *FEW)
    lost, other = workers[without], workers[1 - without]
    assert (lost.wait(LIMIT), other.wait(LIMIT)) == (2, 1)
    assert re.search("^error: .* must name an existing folder", last_line(lost))
    said = r"^error: Another worker was lost before the first step \(.*start all workers again"
    assert re.search(said, last_line(other))
    for worker in workers:
        assert "Traceback" not in worker.log.read_text()


def test_workers_that_cannot_share_an_evaluation_say_so_before_they_train(tmp_path):
    flags = (*FEW, "--set=held_out=1")
    workers = bignas_train_workers(tmp_path / "run", ["digits", "digits"], *flags)
    for worker in workers:
        assert worker.wait(LIMIT) == 2
        assert last_line(worker).endswith(
            "`held_out` must be at least 2 images, one for each worker. Received: 1"
        )
    assert not (tmp_path / "run" / "log.jsonl").exists()
