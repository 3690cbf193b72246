"""How a run ends before its time, and what it leaves then."""

import contextlib
import json
import os
import re
import signal
import threading
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_run import image_folder
from trainer_case import (
    FOLDER,
    RECIPE,
    TINY,
    checkpoint,
    records,
    register,
    steps_saved,
)

import bignas_tf.training.run_data as run_data_module
import bignas_tf.training.tensorflow_terms as tensorflow_terms
import bignas_tf.training.trainer as trainer_module
from bignas_tf.data import BrokenImageError, load_source
from bignas_tf.files import FolderInUse, only_writer
from bignas_tf.supernet import Supernet
from bignas_tf.training.layout import Layout
from bignas_tf.training.loop import NonFiniteLossError, WorkerLostError
from bignas_tf.training.rule import SandwichRule
from bignas_tf.training.tensorflow_loop import TensorflowLoop
from bignas_tf.training.trainer import Trainer

# Eager steps would draw tf.data's own warning that it is not run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    register(monkeypatch)


def test_a_broken_image_stops_the_run_by_name_which_then_goes_on_without_it(
    tmp_path, monkeypatch, eager
):
    data = image_folder(tmp_path / "images", count=20)

    def from_disk(name, **options):
        return load_source(name, memory_limit_mb=0, **options)

    monkeypatch.setattr(run_data_module, "load_source", from_disk)
    trainer = Trainer(FOLDER, tmp_path / "run", data=data)
    assert trainer.plan.steps_per_epoch == 8
    step = 2  # the first that reads the broken file
    broken = trainer.plan.split.paths[trainer.plan.indices(step)[0]]
    with open(broken, "r+b") as file:
        file.truncate(200)
    with pytest.raises(BrokenImageError, match=broken):
        trainer.run()
    assert steps_saved(tmp_path / "run") == [step]
    skipping = FOLDER.replace(on_bad_image="skip")
    assert Trainer(skipping, tmp_path / "run", data=data).run(stop_after=3) == 3
    (listed,) = json.loads((tmp_path / "run" / "bad_images.json").read_text())
    assert listed == broken
    Image.new("L", (8, 8)).save(broken)
    assert Trainer(FOLDER, tmp_path / "run", data=data).run(stop_after=4) == 4


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch, eager
):
    trainer = Trainer(RECIPE, tmp_path)
    train = trainer.loop.train

    def diverges(chunk, number):
        (losses,) = train(chunk, number)
        return [losses | {"random2": float("nan")} if number == 5 else losses]

    monkeypatch.setattr(trainer.loop, "train", diverges)
    with pytest.raises(NonFiniteLossError, match="random2 child is nan after step 5"):
        trainer.run()
    assert steps_saved(tmp_path) == [4]
    assert records(tmp_path)[-1]["step"] == 5
    arrays, _ = checkpoint(tmp_path, 4)
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_huge_learning_rate_ends_in_a_loss_that_is_not_finite(tmp_path, eager):
    recipe = RECIPE.replace(schedule={"kind": "cosine", "initial": 1e30})
    with pytest.raises(NonFiniteLossError, match=r"child is (nan|inf) after step \d"):
        Trainer(recipe, tmp_path).run()


def test_an_error_within_a_step_never_saves_half_of_it(tmp_path, monkeypatch, eager):
    trainer = Trainer(RECIPE, tmp_path)

    def breaks(chunk, number):
        raise KeyboardInterrupt

    trainer.run(stop_after=1)
    monkeypatch.setattr(trainer.loop, "train", breaks)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert steps_saved(tmp_path) == [1]


def test_a_worker_asked_to_stop_trains_one_more_step_which_tells_the_others(
    tmp_path, monkeypatch, eager
):
    trainer = Trainer(RECIPE, tmp_path)
    train, asked = trainer.loop.train, []

    def tells(chunk, number):
        losses = train(chunk, number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        trainer.loop.stopped = bool(asked)
        return losses

    monkeypatch.setattr(trainer.loop, "stop", lambda: asked.append(trainer.step))
    monkeypatch.setattr(trainer.loop, "train", tells)
    assert trainer.run() == 4
    assert (asked[0], trainer.interrupted) == (3, signal.SIGTERM)
    assert steps_saved(tmp_path)[-1] == 4


def test_a_trainer_that_was_stopped_goes_on_when_it_is_run_again(tmp_path, monkeypatch, eager):
    trainer = Trainer(RECIPE, tmp_path)
    train = trainer.loop.train

    def interrupted(chunk, number):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler's and a wrapper's: none is lost
        return train(chunk, number)

    monkeypatch.setattr(trainer.loop, "train", interrupted)
    assert trainer.run() == 1
    monkeypatch.setattr(trainer.loop, "train", train)
    assert trainer.run(stop_after=3) == 3


def test_a_process_that_another_has_overtaken_takes_nothing_back(tmp_path, eager):
    late = Trainer(RECIPE, tmp_path)
    assert Trainer(RECIPE, tmp_path).run(stop_after=2) == 2
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FolderInUse, match="another one has saved in .* since this one read it"):
        late.run()
    assert all(path.read_bytes() == content for path, content in files.items())
    assert Trainer(RECIPE, tmp_path).run(stop_after=3) == 3


def test_what_is_trained_is_saved_even_if_bad_images_cannot_be_listed(
    tmp_path, monkeypatch, capsys, eager
):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(trainer_module, "list_bad_images", full)
    assert Trainer(RECIPE, tmp_path).run(stop_after=1) == 1
    assert steps_saved(tmp_path) == [1]
    assert "bad images are not listed: no space left" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch, eager):
    trainer = Trainer(RECIPE, tmp_path)
    train = trainer.loop.train

    def breaks(chunk, number):
        losses = train(chunk, number)
        if number == 3:  # the last of an epoch, after its losses
            trainer.loop._variables[0].assign(trainer.loop._variables[0] * np.nan)
        return losses

    monkeypatch.setattr(trainer.loop, "train", breaks)
    with pytest.raises(FloatingPointError, match=r"is not finite, .*step_00000004\S* is not saved"):
        trainer.run()
    assert steps_saved(tmp_path) == []


def test_a_second_process_in_the_folder_is_refused_by_the_name_of_the_first(tmp_path):
    with only_writer(tmp_path, "trained into"):
        mine = f"being trained into by process {os.getpid()} on "
        with pytest.raises(FolderInUse, match=mine):
            Trainer(RECIPE, tmp_path).run()
    assert not (tmp_path / "run.json").exists()  # which the first one writes
    with only_writer(tmp_path, "trained into"):
        pass


@pytest.mark.parametrize(
    ("consistent", "factor", "saved"), [(True, 1.0, [2]), (False, 1.0, []), (True, np.nan, [])]
)
def test_a_run_that_loses_a_worker_saves_its_step_unless_weights_are_half_new_or_not_finite(
    tmp_path, monkeypatch, capsys, consistent, factor, saved
):
    trainer = Trainer(RECIPE, tmp_path)

    def train(chunk, number):
        if number < 2:
            return [{"biggest": 1.0}]
        weight = trainer.loop._variables[0]
        weight.assign(weight * factor)
        raise WorkerLostError(2, consistent, "gone")

    monkeypatch.setattr(trainer.loop, "train", train)
    with pytest.raises(WorkerLostError, match="worker was lost after step 2.*Start all workers"):
        trainer.run()
    assert steps_saved(tmp_path) == saved
    refused = re.search(r"is not finite, .*step_00000002\S* is not saved", capsys.readouterr().err)
    assert bool(refused) == np.isnan(factor)


@pytest.fixture
def survivor(tmp_path, monkeypatch):
    """A trainer of worker 1, which loses worker 0 after two steps."""
    monkeypatch.setattr(TensorflowLoop, "worker", 1)
    trainer = Trainer(RECIPE, tmp_path)

    def train(chunk, number):
        if number < 2:
            return [{"biggest": 1.0}]
        raise WorkerLostError(2, True, "gone")

    monkeypatch.setattr(trainer.loop, "train", train)
    return trainer


def test_a_worker_that_lost_another_waits_for_one_that_is_saving_and_leaves_it_at_that(
    tmp_path, monkeypatch, survivor
):
    saves = []
    monkeypatch.setattr(survivor, "save", lambda: saves.append(survivor.step))
    begun = threading.Event()

    def other():
        with only_writer(tmp_path, "trained into"):
            begun.set()
            time.sleep(0.5)
            survivor.checkpoints.save(2)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with pytest.raises(WorkerLostError):
        survivor.run()
    thread.join()
    assert (saves, steps_saved(tmp_path)) == ([], [2])


def test_a_worker_that_lost_another_does_not_save_into_a_folder_in_use(
    tmp_path, monkeypatch, capsys, survivor
):
    monkeypatch.setattr(trainer_module, "PATIENCE", 0.2)
    with only_writer(tmp_path, "trained into"), pytest.raises(WorkerLostError):
        survivor.run()
    assert steps_saved(tmp_path) == []
    assert "trained into by process" in capsys.readouterr().err
    with pytest.raises(WorkerLostError):
        survivor.run()
    assert steps_saved(tmp_path) == [2]


class TwoWorkers:
    """What a strategy of two processes shows of itself."""

    num_replicas_in_sync = 2
    cluster_resolver = types.SimpleNamespace(
        cluster_spec=lambda: tf.train.ClusterSpec({"worker": ["a:1", "b:1"]}), task_id=0
    )
    scope = contextlib.nullcontext


@pytest.mark.parametrize(
    "of_worker, expected, message",
    [
        (
            tf.errors.UnavailableError(None, None, "{{node x}} Socket closed:\nBye."),
            RuntimeError,
            r"^Another worker was lost before the first step \(Socket closed\)\. .*start all",
        ),
        (
            tf.errors.InternalError(None, None, "Collective ops is aborted by: an error"),
            RuntimeError,
            "Collective ops is aborted by: an error",
        ),
        (
            tf.errors.FailedPreconditionError(
                None, None, "Device /task:1 current incarnation doesn't match with one in the group"
            ),
            RuntimeError,
            "Another worker was lost .*current incarnation doesn't match",
        ),
        (
            tf.errors.FailedPreconditionError(None, None, "a table that is not initialized"),
            tf.errors.FailedPreconditionError,
            "a table that is not initialized",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "own memory"),
            tf.errors.ResourceExhaustedError,
            "own memory",
        ),
    ],
)
def test_a_worker_lost_while_all_start_is_told_from_errors_of_this_one(
    tmp_path, monkeypatch, of_worker, expected, message
):
    def fails(*_, **__):
        raise of_worker

    monkeypatch.setattr(trainer_module, "Supernet", fails)
    with pytest.raises(expected, match=message):
        Trainer(RECIPE, tmp_path, loop_options={"strategy": TwoWorkers()})


def test_an_evaluation_that_workers_cannot_share_is_refused_before_training(tmp_path, monkeypatch):
    # Not the strategy itself, under which variables could not be made in one process.
    monkeypatch.setattr(tensorflow_terms, "Layout", lambda _: Layout(TwoWorkers()))
    recipe = RECIPE.replace(evaluate_every=1, held_out=1)
    with pytest.raises(ValueError, match="`held_out` must be at least 2 images.* Received: 1"):
        Trainer(recipe, tmp_path)
    for enough in ({"held_out": 2}, {"evaluate_every": 0}):
        assert Trainer(recipe.replace(**enough), tmp_path).step == 0


def test_workers_that_differ_are_told_in_what(monkeypatch):
    supernet = Supernet(TINY)
    loop = TensorflowLoop(supernet, SandwichRule(TINY), keras.optimizers.SGD(), batch_size=2)
    loop.require_alike({"step": 3, "weights": 5})
    monkeypatch.setattr(loop, "gather", lambda values: np.stack([values, values + [0, 1]]))
    with pytest.raises(ValueError, match=r"`weights` must be alike .* Received: \[5, 6\]"):
        loop.require_alike({"step": 3, "weights": 5})
