"""What a run makes up for that was killed after a checkpoint, or whose newest one is damaged."""

import shutil
import types

import pytest
from trainer_case import RECIPE, checkpoint, records, register, steps_saved

from bignas_tf.training.checkpoints import CheckpointError
from bignas_tf.training.trainer import Trainer


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    register(monkeypatch)


class Killed(BaseException):
    """What no one catches."""


def dies(*_):
    raise Killed


def scores(*_):
    """An evaluator of its kind."""
    return types.SimpleNamespace(score=lambda children: [{"accuracy": 0.75}, {"accuracy": 0.5}])


def trains(workdir, evaluator=scores):
    """Two epochs of two steps, which change no weight, and an evaluation after the second.

    Returns:
        The steps that were trained.
    """
    recipe = RECIPE.replace(batch_size=64, evaluate_every=2)
    trainer, steps = Trainer(recipe, workdir), []

    def train(chunk, step):
        steps.append(step)
        return [{"biggest": 1.0}]

    trainer.loop.train, trainer.loop.evaluator = train, evaluator
    assert trainer.run() == 4
    return steps


def accuracies(workdir):
    lines = [line for line in records(workdir) if "accuracy/biggest" in line]
    return [(line["step"], line["accuracy/biggest"], line["accuracy/smallest"]) for line in lines]


def test_a_run_killed_before_its_evaluation_makes_up_for_it_once(tmp_path):
    with pytest.raises(Killed):
        trains(tmp_path, dies)
    assert steps_saved(tmp_path) == [2, 4]
    assert accuracies(tmp_path) == []
    assert trains(tmp_path) == []
    assert accuracies(tmp_path) == [(4, 0.75, 0.5)]
    assert trains(tmp_path, dies) == []
    assert accuracies(tmp_path) == [(4, 0.75, 0.5)]


def test_a_damaged_newest_checkpoint_is_trained_for_and_saved_again(tmp_path):
    assert trains(tmp_path) == [0, 1, 2, 3]
    newest = tmp_path / "checkpoints" / "step_00000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(RuntimeWarning, match="step_00000004.safetensors is damaged"):
        assert trains(tmp_path) == [2, 3]
    assert steps_saved(tmp_path) == [2, 4]
    assert checkpoint(tmp_path, 4)[1]["step"] == 4


def test_a_run_resumes_from_its_best_checkpoint_under_the_name_of_its_step(tmp_path):
    trains(tmp_path)
    folder = tmp_path / "checkpoints"
    for path in folder.glob("step_*"):
        path.unlink()
    shutil.copy(folder / "best.safetensors", folder / "step_00000003.safetensors")
    with pytest.raises(CheckpointError, match="must be named after its step, 4. Received: 3"):
        trains(tmp_path)
    (folder / "step_00000003.safetensors").rename(folder / "step_00000004.safetensors")
    assert trains(tmp_path) == []
