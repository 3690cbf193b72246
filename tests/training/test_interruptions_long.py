"""Runs that are killed, and whose disk fails, for real: `make test-long`."""

import random
import re
import resource
import shutil
import signal
import time

import numpy as np
import pytest
from run_processes import (
    LIMIT,
    accuracies,
    assert_same_weights,
    bignas_train,
    checkpoint,
    curve,
    final_step,
    finished,
    logged,
    records,
    start,
    start_workers,
    wait_for_steps,
    wait_until,
)

from bignas_tf.training.checkpoints import CheckpointManager, read_checkpoint
from bignas_tf.training.logs import JsonlLog

pytestmark = pytest.mark.long
EPOCH = 13  # steps, of 1,297 images


FOUR_EPOCHS = (
    "--set=epochs=4",
    "--set=batch_size=96",
    "--set=held_out=141",
    "--set=calibration_images=64",
    "--set=evaluate_every=2",
)


def train(workdir, *changes):
    return bignas_train(workdir, *FOUR_EPOCHS, *changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted; checkpoints of its last three epochs."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    finished(train(workdir))
    steps = [final_step(workdir) - EPOCH * epochs for epochs in (2, 1, 0)]
    assert steps == [2 * EPOCH, 3 * EPOCH, 4 * EPOCH]
    assert CheckpointManager(workdir / "checkpoints").paths() == [
        checkpoint(workdir, step) for step in steps
    ]
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(whole, tmp_path / "run")


def assert_as_if_nothing_had_been(run, whole):
    assert_same_weights(run, whole)
    assert records(run) == records(whole)
    assert_same_best(run, whole)


def assert_same_best(run, whole):
    arrays, metadata = read_checkpoint(run / "checkpoints" / "best.safetensors")
    expected, same = read_checkpoint(whole / "checkpoints" / "best.safetensors")
    assert metadata == same
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def cut_short(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def overwrite_with_noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def overwrite_a_part_with_noise(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(np.random.default_rng(0).bytes(4096))


@pytest.mark.parametrize("damage", [cut_short, overwrite_with_noise, overwrite_a_part_with_noise])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_which_ends_the_same(
    whole, run, damage
):
    newest = checkpoint(run, 4 * EPOCH)
    damage(newest)
    again = train(run)
    finished(again)
    said = again.log.read_text()
    assert re.search(f"{newest.name} is damaged.*; trying the one before", said)
    assert f"trained {4 * EPOCH} steps" in said
    assert_as_if_nothing_had_been(run, whole)


def test_a_disk_that_gets_full_is_said_and_the_run_goes_on_when_there_is_room(whole, run):
    sizes = [path.stat().st_size for path in CheckpointManager(run / "checkpoints").paths()]
    for step in (3 * EPOCH, 4 * EPOCH):
        checkpoint(run, step).unlink()
    before = checkpoint(run, 2 * EPOCH).read_bytes()
    full = train(run)
    resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (min(sizes) // 2, min(sizes) // 2))
    assert full.wait(LIMIT) == 2
    assert re.search(
        rf"error: The checkpoint \S*step_{3 * EPOCH:08d}.safetensors cannot be written: .*; "
        rf"older ones are intact, the newest of them is step_{2 * EPOCH:08d}.safetensors",
        full.log.read_text(),
    )
    kept = [path.name for path in (run / "checkpoints").iterdir() if "best" not in path.name]
    assert kept == [checkpoint(run, 2 * EPOCH).name]
    assert checkpoint(run, 2 * EPOCH).read_bytes() == before
    finished(train(run))
    assert_as_if_nothing_had_been(run, whole)


def test_sigterm_saves_and_exits_with_0_and_the_same_command_goes_on(whole, tmp_path):
    workdir = tmp_path / "run"
    process = train(workdir)
    wait_for_steps(workdir, 1, process)
    process.send_signal(signal.SIGTERM)
    finished(process)
    step = final_step(workdir)
    assert 10 <= step < 4 * EPOCH
    assert f"stopped and saved at step {step} of {4 * EPOCH}" in process.log.read_text()
    finished(train(workdir))
    assert_as_if_nothing_had_been(workdir, whole)


def test_a_run_killed_while_it_evaluates_makes_up_for_it(whole, tmp_path):
    workdir = tmp_path / "run"
    process = train(workdir)
    # The checkpoint of the epoch's end comes right before its evaluation.
    wait_until(checkpoint(workdir, 2 * EPOCH).exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not len(accuracies(workdir))
    finished(train(workdir))
    assert_as_if_nothing_had_been(workdir, whole)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_child(tmp_path):
    workdir = tmp_path / "run"
    # Rate 0, then 1e30 / 52: the weights after the first step are sound.
    schedule = '--set=schedule={"kind": "cosine", "initial": 1e30, "warmup_epochs": 3.9}'
    every_step = "--set=checkpoint_minutes=1e-9"
    process = train(workdir, schedule, every_step)
    assert process.wait(LIMIT) == 1
    said = process.log.read_text()
    found = re.search(r"error: The loss of the \w+ child is (?:nan|inf) after step (\d+)", said)
    assert found, said[-3000:]
    step = int(found[1])
    assert 1 <= step <= 3
    paths = CheckpointManager(workdir / "checkpoints").paths()
    assert paths[0] == checkpoint(workdir, 1)
    assert len(paths) == step
    for path in paths:
        assert all(np.isfinite(array).all() for array in read_checkpoint(path)[0].values())


def test_a_run_killed_at_any_moment_ends_bit_for_bit_as_the_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = {"strategy": "one_device"}
    settings["recipe"] = {"epochs": 12, "evaluate_every": 0}  # 240 steps, a checkpoint every 20
    seconds_to_start, seconds_of_20_steps = timed(whole, settings)
    draw = random.Random(0)  # noqa: S311 - moments of a test
    moments = ["start"] * 2 + ["step"] * 8 + ["save"] * 2
    draw.shuffle(moments)
    kept = trained = 0
    for moment in moments:
        forget_lines_after(killed, kept)
        # Otherwise a checkpoint is whole before the signal arrives.
        slow = {"seconds_to_sync": 0.5} if moment == "save" else {}
        process = start(killed, **settings, **slow)
        if moment == "start":
            wait(draw.uniform(0, seconds_to_start), killed, kept + 1, process)
        else:
            # Steps of its own; with ten kills 11 steps apart it gets to the end all the same.
            step = max(kept + 1, 11 * trained)
            wait_for_steps(killed, step, process)
            trained += 1
        if moment == "step":
            wait(draw.uniform(0, seconds_of_20_steps), killed, step + 20, process)
        elif moment == "save":
            wait_for_a_save(killed, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was at its end already"
        assert moment != "save" or unfinished(killed, process.pid)
        kept = final_step(killed) if any(killed.glob("checkpoints/step_*")) else 0
    assert trained == 10 and kept >= 80
    finished(start(killed, **settings))
    assert not unfinished(killed)
    assert_same_weights(killed, whole)
    np.testing.assert_array_equal(curve(killed), curve(whole))


def timed(workdir, settings):
    """Seconds that a run takes up to its first step, and then for 20 steps and their checkpoint."""
    begun = time.monotonic()
    process = start(workdir, **settings)
    wait_for_steps(workdir, 1, process)
    first = time.monotonic()
    wait_for_steps(workdir, 41, process)
    seconds = (time.monotonic() - first) / 2
    finished(process)
    return first - begun, seconds


def wait(seconds, workdir, steps, process):
    """Waits so long, or for so many steps on a machine that is less busy than it was."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end or logged(workdir) >= steps, process)


def wait_for_a_save(workdir, process):
    wait_until(lambda: unfinished(workdir, process.pid), process)


def unfinished(workdir, process="*"):
    """Checkpoints that a process of that number, or any, writes or wrote when it was killed."""
    return list(workdir.glob(f"checkpoints/.step_*.{process}.tmp"))


def forget_lines_after(workdir, step):
    """What a run that goes on does itself: every further line is its own."""
    path = workdir / "log.jsonl"
    if path.exists():
        JsonlLog(path, resume_step=step).close()
        assert len(path.read_text().splitlines()) == step


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """A run of three epochs of 20 steps, evaluated after each."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    finished(start(workdir, strategy="one_device", recipe={"epochs": 3}))
    return workdir


def in_a_step(workdir, workers):
    wait_for_steps(workdir, 25, *workers)


def in_an_evaluation(workdir, workers):
    wait_until(checkpoint(workdir, 20).exists, *workers)


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("moment", [in_a_step, in_an_evaluation])
def test_a_worker_that_loses_the_other_saves_says_why_and_both_go_on(
    one_device, tmp_path, victim, moment
):
    recipe = {"epochs": 3}
    workdir = tmp_path / "run"
    workers = start_workers(workdir, 2, recipe=recipe)
    moment(workdir, workers)
    workers[victim].send_signal(signal.SIGKILL)
    workers[victim].wait()
    survivor = workers[1 - victim]
    assert survivor.wait(LIMIT) != 0
    said = re.search(
        r"Another worker was lost after step (\d+)(.*not saved)?", survivor.log.read_text()
    )
    # Lost while weights change, which is seldom, the newest checkpoint is the epoch's end.
    assert final_step(workdir) == (20 if said[2] else int(said[1]))
    if moment is in_an_evaluation:
        assert (said[1], said[2]) == ("20", None)
    else:
        assert int(said[1]) >= 24  # 25 lines, one of them of the evaluation
    assert len(accuracies(workdir)) == (moment is in_a_step)
    finished(*start_workers(workdir, 2, recipe=recipe))
    assert final_step(workdir) == 60
    np.testing.assert_allclose(curve(workdir), curve(one_device), atol=1e-5)
    # An image whose two best classes are near each other may be counted the other way.
    np.testing.assert_allclose(accuracies(workdir), accuracies(one_device), atol=2 / 958)
