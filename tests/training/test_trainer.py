import dataclasses
import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import bignas_tf.training.run_data as run_data_module
import bignas_tf.training.trainer as trainer_module
from bignas_tf.data import BrokenImageError, load_source
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.files import FolderInUse, only_writer
from bignas_tf.spaces import SPACES, MBConvSpace, Stage
from bignas_tf.supernet import Supernet
from bignas_tf.training.checkpoints import CheckpointError, CheckpointManager, read_checkpoint
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.rule import SandwichRule
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.state import load_trained
from bignas_tf.training.tensorflow_loop import TensorflowLoop
from bignas_tf.training.trainer import NonFiniteLossError, Trainer

TINY = MBConvSpace(
    name="tiny",
    resolution_choices=(6, 8),
    stem_widths=(4,),
    stem_strides=1,
    stages=(Stage((4, 8), (1, 2), (3,), (2,), 2),),
    head_widths=(8,),
    dropout=0.5,
    classes=10,
    input_channels=1,
)
with pytest.MonkeyPatch.context() as patch:
    patch.setitem(SPACES, "tiny", lambda: TINY)
    # 1,438 training digits, of which 138 are left: four steps an epoch.
    RECIPE = Recipe(
        name="tiny",
        space="tiny",
        data="digits",
        image_size=8,
        epochs=2,
        batch_size=32,
        optimizer={"kind": "sgd", "momentum": 0.9},
        schedule={"kind": "cosine", "initial": 0.1, "warmup_epochs": 0.5},
        augmentation={"shift": 1, "flip": True},
        label_smoothing=0.1,
        weight_decay=1e-3,
        held_out=1300,
        calibration_images=64,
    )
    FOLDER = RECIPE.replace(data=None, batch_size=4, held_out=0, epochs=4)
# Eager steps would draw tf.data's own warning that it is not run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    monkeypatch.setitem(SPACES, "tiny", lambda: TINY)
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)


@pytest.fixture
def eager():
    """Steps run as they are written, which for a few is faster than tracing them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def records(workdir):
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def without_speed(lines):
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def checkpoint(workdir, step):
    return read_checkpoint(workdir / "checkpoints" / f"step_{step:08d}.safetensors")


def steps_saved(workdir):
    paths = CheckpointManager(workdir / "checkpoints").paths()
    return [int(path.stem.removeprefix("step_")) for path in paths]


def assert_same_state(workdir, other, step):
    arrays, metadata = checkpoint(workdir, step)
    expected, expected_metadata = checkpoint(other, step)
    assert metadata == expected_metadata
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


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


def test_no_image_is_in_two_of_training_held_out_and_test():
    data = load_run_data(RECIPE)
    splits = [data.train, data.held_out, data.source.test]
    rows = [split.read(np.arange(len(split))).reshape(len(split), -1) for split in splits]
    everything = load_source("digits", image_size=8, channels=1)
    whole = [split.read(np.arange(len(split))) for split in (everything.train, everything.test)]
    whole = np.concatenate(whole).reshape(1797, -1)
    assert sorted(map(bytes, np.concatenate(rows))) == sorted(map(bytes, whole))
    calibration = data.calibration.read(np.arange(64)).reshape(64, -1)
    assert set(map(bytes, calibration)) <= set(map(bytes, rows[0]))


def resumed(finished, tmp_path, **changes):
    shutil.copytree(finished, tmp_path / "copy")
    return Trainer(RECIPE.replace(evaluate_every=1).replace(**changes), tmp_path / "copy")


def test_a_finished_run_has_nothing_left_to_do_until_it_gets_more_epochs(finished, tmp_path, eager):
    trainer = resumed(finished, tmp_path)
    assert trainer.run() == 8
    assert records(tmp_path / "copy") == records(finished)
    longer = Trainer(RECIPE.replace(epochs=3, evaluate_every=0), tmp_path / "copy")
    assert (longer.step, longer.total_steps) == (8, 12)
    assert longer.run(stop_after=9) == 9
    assert steps_saved(tmp_path / "copy") == [4, 8, 9]


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


def write_images(root, classes, count=8):
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return f"folder:{root}"


def test_a_run_does_not_go_on_with_other_classes_or_other_images(tmp_path, eager):
    data = write_images(tmp_path / "images", "ab")
    Trainer(FOLDER, tmp_path / "run", data=data).run(stop_after=1)
    more = write_images(tmp_path / "classes", "abc")
    with pytest.raises(CheckpointError, match=r"another classes.*Received: \['a', 'b', 'c'\]"):
        Trainer(FOLDER, tmp_path / "run", data=more)
    others = write_images(tmp_path / "others", "ab", count=9)
    with pytest.raises(CheckpointError, match="another data fingerprint"):
        Trainer(FOLDER, tmp_path / "run", data=others)
    # The same images elsewhere are the same data.
    shutil.move(tmp_path / "images", tmp_path / "moved")
    assert Trainer(FOLDER, tmp_path / "run", data=f"folder:{tmp_path / 'moved'}").step == 1


def test_a_run_for_other_classes_starts_from_all_weights_but_the_classifier(finished, tmp_path):
    data = write_images(tmp_path / "images", "ab")
    trainer = Trainer(FOLDER.replace(init_from=str(finished)), tmp_path / "run", data=data)
    given, _ = checkpoint(finished, 8)
    own = trainer.supernet.weight_arrays()
    assert own["head_classifier/kernel"].shape[-1] == 2
    for path, array in own.items():
        if not path.startswith("head_classifier/"):
            np.testing.assert_array_equal(array, given[f"weights/{path}"], err_msg=path)
    assert trainer.step == 0


def test_a_broken_image_stops_the_run_by_name_which_then_goes_on_without_it(
    tmp_path, monkeypatch, eager
):
    data = write_images(tmp_path / "images", "ab", count=20)

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
    with pytest.raises(NonFiniteLossError, match="random2 child is nan at step 5"):
        trainer.run()
    assert steps_saved(tmp_path) == [4]
    assert records(tmp_path)[-1]["step"] == 5
    arrays, _ = checkpoint(tmp_path, 4)
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_huge_learning_rate_ends_in_a_loss_that_is_not_finite(tmp_path, eager):
    recipe = RECIPE.replace(schedule={"kind": "cosine", "initial": 1e30})
    with pytest.raises(NonFiniteLossError, match=r"child is (nan|inf) at step \d"):
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


def test_data_must_be_named_where_the_recipe_names_none():
    with pytest.raises(ValueError, match="`data` must be given for recipe 'tiny'"):
        load_run_data(FOLDER)


def test_calibration_images_of_a_folder_sorted_by_class_are_mixed(tmp_path):
    for part, count in (("train", 30), ("test", 2)):
        for number, name in enumerate(("black", "white")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((8, 8), 255 * number, np.uint8)).save(folder / f"{i}.png")
    data = load_run_data(FOLDER.replace(calibration_images=32, held_out=10), f"folder:{tmp_path}")
    assert set(data.calibration.labels[:8]) == {0, 1}
    assert sorted(np.bincount(data.calibration.labels)) == [16, 16]


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


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch, eager):
    trainer = Trainer(RECIPE, tmp_path)
    train = trainer.loop.train

    def breaks(chunk, number):
        losses = train(chunk, number)
        if number == 3:  # the last of an epoch, after its losses
            trainer.loop._variables[0].assign(trainer.loop._variables[0] * np.nan)
        return losses

    monkeypatch.setattr(trainer.loop, "train", breaks)
    with pytest.raises(FloatingPointError, match="is not finite after step 4, which is not saved"):
        trainer.run()
    assert steps_saved(tmp_path) == []


def test_a_second_process_in_the_folder_is_refused_by_the_name_of_the_first(tmp_path):
    with only_writer(tmp_path, "trained into"):
        mine = f"being trained into by process {os.getpid()} on "
        with pytest.raises(FolderInUse, match=mine):
            Trainer(RECIPE, tmp_path).run()
    with only_writer(tmp_path, "trained into"):
        pass


def test_checkpoints_are_made_by_the_clock_too(tmp_path, eager):
    Trainer(RECIPE.replace(checkpoint_minutes=1e-9), tmp_path).run(stop_after=3)
    assert steps_saved(tmp_path) == [1, 2, 3]


def test_workers_that_differ_are_told_in_what(monkeypatch):
    supernet = Supernet(TINY)
    loop = TensorflowLoop(supernet, SandwichRule(TINY), keras.optimizers.SGD(), batch_size=2)
    loop.require_alike({"step": 3, "weights": 5})
    monkeypatch.setattr(loop, "gather", lambda values: np.stack([values, values + [0, 1]]))
    with pytest.raises(ValueError, match=r"`weights` must be alike .* Received: \[5, 6\]"):
        loop.require_alike({"step": 3, "weights": 5})
