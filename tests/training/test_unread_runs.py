"""Runs whose terminal is gone or whose log cannot be written: no step is lost to either."""

import contextlib
import os
import signal

import pytest
from commands_fixture import WARNINGS
from trainer_case import RECIPE, assert_same_state, records, register, steps_saved

import bignas_tf.training.recipe as recipe_module
from bignas_tf import cli
from bignas_tf.training.logs import JsonlLog
from bignas_tf.training.loop import NonFiniteLossError
from bignas_tf.training.tensorflow_loop import TensorflowLoop
from bignas_tf.training.trainer import Trainer

pytestmark = WARNINGS


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    register(monkeypatch)


@contextlib.contextmanager
def unread():
    """Standard output and error are pipes whose readers are gone."""
    # Not a fixture: after those, pytest puts its own in place.
    with contextlib.ExitStack() as stack:
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            reader, writer = os.pipe()
            os.close(reader)
            # Closing it is an error if anything is left to be written.
            stack.enter_context(redirect(stack.enter_context(os.fdopen(writer, "w"))))
        yield


def test_a_run_goes_on_to_its_end_when_nobody_reads_what_it_shows(tmp_path, eager):
    recipe = RECIPE.replace(batch_size=64, evaluate_every=1)
    with unread():
        assert Trainer(recipe, tmp_path).run() == 4
    assert steps_saved(tmp_path) == [2, 4]
    lines = [(line["step"], "loss" in line) for line in records(tmp_path)]
    assert lines == [(1, True), (2, True), (2, False), (3, True), (4, True), (4, False)]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
@pytest.mark.usefixtures("heeding_signals")
def test_a_stop_saves_and_ends_with_its_status_when_nobody_reads_what_is_said(
    tmp_path, monkeypatch, number, status
):
    def train(loop, chunk, step):
        os.kill(os.getpid(), number)
        return [{"biggest": 1.0}]

    monkeypatch.setattr(recipe_module, "get_recipe", lambda name: RECIPE)
    monkeypatch.setattr(TensorflowLoop, "train", train)
    arguments = cli._parse(["bignas", "train", "--recipe=digits", f"--workdir={tmp_path}"])
    with unread():
        assert arguments.main(arguments) == status
    assert steps_saved(tmp_path) == [1]


@pytest.fixture
def full(monkeypatch):
    """Logs cannot be written."""

    def write(log, record):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(JsonlLog, "write", write)
        yield patch


def test_what_was_trained_in_a_call_is_saved_although_it_cannot_be_logged(tmp_path, full, eager):
    options = {"steps_per_call": 2}
    trainer = Trainer(RECIPE, tmp_path / "full", loop_options=options)
    with pytest.raises(OSError, match="no space left"):
        trainer.run()
    assert trainer.step == 2
    assert steps_saved(tmp_path / "full") == [2]
    full.undo()
    for name in ("full", "whole"):
        Trainer(RECIPE, tmp_path / name, loop_options=options).run(stop_after=4)
    assert_same_state(tmp_path / "full", tmp_path / "whole", 4)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_of_a_call_in_which_a_loss_is_not_finite_the_steps_before_it_count_and_are_logged(
    tmp_path, monkeypatch, bad
):
    trainer = Trainer(RECIPE, tmp_path, loop_options={"steps_per_call": 3})
    losses = [{"biggest": 1.0}] * 3
    losses[bad] = {"biggest": float("nan")}
    monkeypatch.setattr(trainer.loop, "train", lambda chunk, step: losses)
    with pytest.raises(NonFiniteLossError, match=f"biggest child is nan after step {bad}"):
        trainer.run()
    assert trainer.step == bad
    assert [line["step"] for line in records(tmp_path)] == list(range(1, bad + 1))
    assert steps_saved(tmp_path) == []
