"""Runs from their start to their end, in one sitting or several."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import image_folder
from trainer_case import (
    FOLDER,
    RECIPE,
    TINY,
    assert_same_state,
    checkpoint,
    records,
    register,
    steps_saved,
    without_speed,
)

import bignas_tf.training.trainer as trainer_module
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.spaces import SPACES
from bignas_tf.training.checkpoints import CheckpointError
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.state import load_trained
from bignas_tf.training.trainer import Trainer

# Eager steps would draw tf.data's own warning that it is not run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    register(monkeypatch)


def test_a_killed_run_that_goes_on_equals_one_that_never_stopped(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    Trainer(RECIPE, straight).run(stop_after=6)
    assert steps_saved(straight) == [4, 6]
    # What a run leaves that was killed after its sixth step: a checkpoint of the fourth.
    shutil.copytree(straight, killed)
    (killed / "checkpoints" / "step_00000006.safetensors").unlink()
    trainer = Trainer(RECIPE, killed)
    assert trainer.step == 4
    assert trainer.run(stop_after=6) == 6
    assert_same_state(killed, straight, 6)
    assert without_speed(records(killed)) == without_speed(records(straight))
    assert [line["step"] for line in records(killed)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_run_in_three_sittings_equals_one_in_one(tmp_path, eager):
    Trainer(RECIPE, tmp_path / "one").run(stop_after=5)
    for stop in (1, 3, 5):
        assert Trainer(RECIPE, tmp_path / "three").run(stop_after=stop) == stop
    assert_same_state(tmp_path / "three", tmp_path / "one", 5)
    lines = [without_speed(records(tmp_path / name)) for name in ("one", "three")]
    assert lines[0] == lines[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of an eager run to the end of its two epochs, evaluated after each."""
    workdir = tmp_path_factory.mktemp("finished")
    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES, "tiny", lambda: TINY)
        patch.setattr(trainer_module, "LOG_EVERY", 3)
        recipe = RECIPE.replace(evaluate_every=1)
        assert Trainer(recipe, workdir, command=["bignas", "train", "a b"]).run() == 8
    tf.config.run_functions_eagerly(False)
    return workdir


def test_the_log_has_losses_by_child_rate_and_speed(finished):
    lines = [line for line in records(finished) if "loss" in line]
    assert [(line["step"], line["epoch"]) for line in lines] == [(3, 0.75), (6, 1.5), (8, 2.0)]
    for line in lines:
        parts = [line[f"loss/{name}"] for name in ("biggest", "smallest", "random1", "random2")]
        assert line["loss"] == pytest.approx(sum(parts), rel=1e-6)
        assert line["images_per_second"] > 0
    # Two steps of warm-up, then the cosine over six; the rate is that of the step just made.
    expected = [0.1, 0.05 * (1 + np.cos(np.pi * 3 / 6)), 0.05 * (1 + np.cos(np.pi * 5 / 6))]
    assert [line["learning_rate"] for line in lines] == pytest.approx(expected, rel=1e-5)


def test_an_evaluated_epoch_logs_the_accuracies_of_both_extremes(finished):
    lines = [line for line in records(finished) if "accuracy/biggest" in line]
    assert [(line["step"], line["epoch"]) for line in lines] == [(4, 1), (8, 2)]
    trained = load_trained(finished)
    data = load_run_data(trained.recipe)
    evaluator = ChildEvaluator(trained.supernet, data.calibration, data.held_out)
    scores = evaluator.score([TINY.biggest(), TINY.smallest()])
    last = lines[-1]
    assert [last["accuracy/biggest"], last["accuracy/smallest"]] == [s["accuracy"] for s in scores]


def test_an_epoch_is_evaluated_on_the_average_of_the_weights_which_training_keeps_apart(tmp_path):
    trainer, evaluated = Trainer(RECIPE.replace(ema=0.5, evaluate_every=1), tmp_path), []
    variables = trainer.loop._variables

    def train(chunk, step):
        trainer.optimizer.apply([np.ones(v.shape, np.float32) for v in variables], variables)
        return [{"biggest": 1.0}]

    def evaluator(*_):
        evaluated.append(trainer.supernet.weight_arrays())
        return types.SimpleNamespace(score=lambda children: [{"accuracy": 0.5}] * len(children))

    trainer.loop.train, trainer.loop.evaluator = train, evaluator
    trainer.run(stop_after=4)
    (averages,), own = evaluated, trainer.supernet.weight_arrays()
    loaded = load_trained(tmp_path).supernet.weight_arrays()
    arrays, _ = checkpoint(tmp_path, 4)
    for path, average in averages.items():
        np.testing.assert_array_equal(average, loaded[path], err_msg=path)
        np.testing.assert_array_equal(own[path], arrays[f"weights/{path}"], err_msg=path)
        assert np.abs(average - own[path]).max() > 1e-3


def test_a_run_with_a_rate_or_an_optimizer_that_cannot_be_is_refused_before_its_images_are_read(
    tmp_path,
):
    longer = {"kind": "cosine", "initial": 0.1, "warmup_epochs": 2}
    for changes in ({"schedule": longer}, {"optimizer": {"kind": "adam"}}):
        with pytest.raises(ValueError, match="`(warmup_epochs|kind)` must be"):
            Trainer(RECIPE.replace(**changes), tmp_path / "run", data="folder:/nowhere")
    assert not (tmp_path / "run").exists()


def test_run_json_says_how_the_run_was_started(finished):
    run = json.loads((finished / "run.json").read_text())
    assert run["command"] == "bignas train 'a b'"
    assert run["seeds"] == {"run": 0}
    assert Recipe.from_json(run["recipe"]) == RECIPE.replace(evaluate_every=1)
    assert run["versions"]["tensorflow"] == tf.__version__
    assert run["threads"]["intra_op"] == tf.config.threading.get_intra_op_parallelism_threads()
    assert "resumed" not in run
    assert run["rule"]["random_children"] == 2
    data = run["data"]
    assert (data["train"], data["held_out"], data["test"]) == (138, 1300, 359)
    assert data["fingerprint"] == checkpoint(finished, 8)[1]["fingerprint"]


def resumed(finished, tmp_path, **changes):
    shutil.copytree(finished, tmp_path / "copy")
    return Trainer(RECIPE.replace(evaluate_every=1).replace(**changes), tmp_path / "copy")


def test_a_finished_run_has_nothing_left_to_do_until_it_gets_more_epochs(finished, tmp_path, eager):
    trainer = resumed(finished, tmp_path)
    assert trainer.run() == 8
    assert records(tmp_path / "copy") == records(finished)
    recipe = RECIPE.replace(epochs=3, evaluate_every=0, checkpoints_kept=2)
    longer = Trainer(recipe, tmp_path / "copy")
    assert (longer.step, longer.total_steps) == (8, 12)
    assert longer.run(stop_after=9) == 9
    assert steps_saved(tmp_path / "copy") == [8, 9]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"batch_size": 16}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"optimizer": {"kind": "sgd", "momentum": 0.8}}, "optimizer"),
        ({"schedule": {"kind": "cosine", "initial": 0.1}}, "schedule"),
        ({"augmentation": {"shift": 1}}, "augmentation"),
        ({"distillation": False}, "distillation"),
        ({"held_out": 1200}, "held_out"),
    ],
)
def test_a_run_does_not_go_on_with_another_recipe(finished, tmp_path, changes, what):
    with pytest.raises(CheckpointError, match=f"another {what}; use another `workdir`.*Received: "):
        resumed(finished, tmp_path, **changes)
    assert steps_saved(tmp_path / "copy") == [4, 8]
    assert records(tmp_path / "copy") == records(finished)


def test_a_run_does_not_go_on_in_another_space(finished, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="another space; .*Received: 'digits', was: 'tiny'"):
        resumed(finished, tmp_path, space="digits")
    # Weights of the same shapes, but other children.
    redefined = dataclasses.replace(TINY, training_resolutions=(8,))
    monkeypatch.setitem(SPACES, "tiny", lambda: redefined)
    with pytest.raises(CheckpointError, match=r"another `training_resolutions` of space 'tiny'"):
        Trainer(RECIPE.replace(evaluate_every=1), tmp_path / "copy")


def test_a_run_does_not_go_on_with_other_classes_or_other_images(tmp_path, eager):
    data = image_folder(tmp_path / "images")
    Trainer(FOLDER, tmp_path / "run", data=data).run(stop_after=1)
    more = image_folder(tmp_path / "classes", "abc")
    with pytest.raises(CheckpointError, match=r"another classes.*Received: \['a', 'b', 'c'\]"):
        Trainer(FOLDER, tmp_path / "run", data=more)
    others = image_folder(tmp_path / "others", count=9)
    with pytest.raises(CheckpointError, match="another data fingerprint"):
        Trainer(FOLDER, tmp_path / "run", data=others)
    # The same images elsewhere are the same data.
    shutil.move(tmp_path / "images", tmp_path / "moved")
    assert Trainer(FOLDER, tmp_path / "run", data=f"folder:{tmp_path / 'moved'}").step == 1


def test_a_run_for_other_classes_starts_from_all_weights_but_the_classifier(finished, tmp_path):
    data = image_folder(tmp_path / "images")
    trainer = Trainer(FOLDER.replace(init_from=str(finished)), tmp_path / "run", data=data)
    given, _ = checkpoint(finished, 8)
    own = trainer.supernet.weight_arrays()
    assert own["head_classifier/kernel"].shape[-1] == 2
    for path, array in own.items():
        if not path.startswith("head_classifier/"):
            np.testing.assert_array_equal(array, given[f"weights/{path}"], err_msg=path)
    assert trainer.step == 0


def test_a_run_keeps_the_weights_that_it_started_from_however_they_are_spelled(
    finished, tmp_path, monkeypatch, eager
):
    first, run = shutil.copytree(finished, tmp_path / "first"), tmp_path / "run"
    recipe = RECIPE.replace(init_from=str(first))
    Trainer(recipe, run).run(stop_after=1)
    shutil.copytree(first, tmp_path / "other")
    with pytest.raises(CheckpointError, match="another init_from; .*Received: '.*other', was: "):
        Trainer(recipe.replace(init_from=str(tmp_path / "other")), run)
    shutil.rmtree(first)
    monkeypatch.chdir(run)
    for step, spelling in enumerate((None, "../first", "../run/../first/", str(first)), 2):
        assert Trainer(recipe.replace(init_from=spelling), run).run(stop_after=step) == step
        assert checkpoint(run, step)[1]["recipe"]["init_from"] == str(first)
    assert json.loads((run / "run.json").read_text())["recipe"]["init_from"] == str(first)


def test_a_run_that_started_from_nothing_is_not_said_to_have_started_from_something(
    finished, tmp_path
):
    with pytest.raises(CheckpointError, match="another init_from; .*was: None"):
        resumed(finished, tmp_path, init_from=str(finished))


def test_checkpoints_are_made_by_the_clock_too(tmp_path, eager):
    Trainer(RECIPE.replace(checkpoint_minutes=1e-9), tmp_path).run(stop_after=3)
    assert steps_saved(tmp_path) == [1, 2, 3]
