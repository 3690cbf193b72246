"""The same run on every layout, in processes of its own: `make test-long`."""

import signal

import numpy as np
import pytest
from run_processes import curve, final_step, finished, start, start_workers, wait_for_steps

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
