import json
import shutil

import keras
import numpy as np
import pytest
from commands_fixture import (
    BIG,
    SHORT,
    SMALL,
    TINY,
    TRAIN,
    WARNINGS,
    assert_refused,
    bignas,
    done,
    files,
    read,
    registered,
    train,
)
from PIL import Image

from bignas_tf.training.checkpoints import read_checkpoint, write_checkpoint

pytestmark = WARNINGS


@pytest.fixture(autouse=True, scope="module")
def tiny_by_name():
    yield from registered()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(tmp_path_factory)


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to do as one likes with."""
    return shutil.copytree(trained, tmp_path / "run")


MIDDLE = TINY.smallest().as_dict()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("select", f"--budget=mmacs:{SMALL / 2:.6f}"), "`budget` must be at least .* smallest"),
        (("select", "--budget=macs:1"), "`metric` must be one of mmacs, params_m.*'macs'"),
        (("select", f"--budget=mmacs:{BIG}", "--names=a,b"), "`names` must be 1 different ones"),
        (("extract",), "selected is missing; `bignas select` writes it"),
        (("extract", "--genotype=tiny", "--name=a"), "`genotype` must be .*Received: tiny"),
        (("extract", "--genotype=5", "--name=a"), "`genotype` must be .*Received: 5"),
        (("extract", "--genotype={}", "--name=a"), "has the genes resolution, .*missing"),
        (
            ("extract", f"--genotype={json.dumps(MIDDLE | {'resolution': 7})}", "--name=a"),
            "`resolution` of space 'tiny' must be one of 6, 8. Received: 7",
        ),
        (("extract", "--genotype=smallest"), "`genotype` and `name` must be given together"),
        (("extract", "--genotype=smallest", "--name=a", "--method=no"), "`method` must be one of"),
        (("extract", "--genotype=smallest", "--name=../a"), "`name` must be"),
        (("evaluate",), "children has no .keras files; `bignas extract` writes them"),
        (("evaluate", "--image_size=8"), "`image_size` must be given with `model`. Received: 8"),
        (("benchmark", "--csv=a.csv"), "`csv` must be given with `model`. Received: a.csv"),
        (("convert",), "children has no .keras files; `bignas extract` writes them"),
        (("benchmark",), "has no .tflite files; `bignas convert` writes them"),
        (("report",), "selected is missing; `bignas select` writes it"),
        (SHORT, "was started with another (epochs|batch_size)"),
        ((*TRAIN, "--set=space=digits"), "was started with another space"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_lost(run, command, message):
    before = files(run)
    assert_refused(bignas(*command, f"--workdir={run}"), f"^error: .*{message}")
    after = files(run)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path.suffix in (".tmp", ".keras")]


def test_images_of_another_data_set_are_refused(run, tmp_path):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(1300):
            pixels = np.full((8, 8), number % 256, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.bmp")
    data = f"--data=folder:{tmp_path / 'images'}"
    result = bignas("select", f"--workdir={run}", f"--budget=mmacs:{BIG}", data)
    assert_refused(result, "^error: `data` must be the images of the run in .*folder:")
    assert_refused(bignas(*TRAIN, f"--workdir={run}", data), "was started with another classes")


def test_weights_of_another_space_are_no_start(run, tmp_path):
    other = (f"--workdir={tmp_path / 'other'}", "--set=space=digits", f"--init_from={run}")
    assert_refused(bignas(*TRAIN, *other), "^error: `init_from` must be .* space 'digits'")


def test_a_corrupt_checkpoint_is_refused_by_name(run):
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(RuntimeWarning, match="is damaged"):
        result = bignas("extract", f"--workdir={run}", "--genotype=smallest", "--name=a")
    assert_refused(result, "^error: All checkpoints in .* are damaged: step_")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        result = bignas(*TRAIN, f"--workdir={run}")
    assert_refused(result, "^error: All checkpoints in .* are damaged: step_")


def test_a_checkpoint_of_something_else_is_refused(run):
    for path in (run / "checkpoints").iterdir():
        arrays, _ = read_checkpoint(path)
        write_checkpoint(path, arrays, {"epoch": 3})
    for command in (TRAIN, ("select", "--budget=mmacs:1")):
        result = bignas(*command, f"--workdir={run}")
        assert_refused(result, "^error: Checkpoint .* must be that of a run")


def test_a_workdir_that_is_a_file_is_refused(run):
    (checkpoint, *_) = (run / "checkpoints").iterdir()
    for command in (("select", "--budget=mmacs:1"), ("extract",)):
        result = bignas(*command, f"--workdir={checkpoint}")
        assert_refused(result, "^error: `workdir` must be a run's folder. Received: .*safetensors$")


def test_a_child_that_cannot_be_saved_leaves_the_older_one_and_no_record(run, monkeypatch):
    command = ("extract", f"--workdir={run}", "--genotype=smallest", "--name=hand")
    done(*command)
    before = files(run)

    def fail(child, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(keras.Model, "save", fail)
    assert_refused(bignas(*command, "--method=batch_average"), "^error: No space left on device")
    assert files(run) == before
    done_anew = bignas(*command[:-1], "--name=new")
    assert_refused(done_anew, "^error: No space left on device")
    assert files(run) == before


def test_children_of_other_weights_are_not_evaluated(run):
    done("extract", f"--workdir={run}", "--genotype=smallest", "--name=hand")
    path = max((run / "checkpoints").iterdir())
    arrays, metadata = read_checkpoint(path)
    name = next(name for name in arrays if name.startswith("weights/"))
    write_checkpoint(path, arrays | {name: arrays[name] + 1}, metadata)
    before = files(run)
    result = bignas("evaluate", f"--workdir={run}")
    assert_refused(result, "^error: the children must be cut from step_.*`bignas extract`.*hand")
    assert files(run) == before
    described = run / "children" / "hand.json"
    content = read(described)
    assert content.pop("weights")
    described.write_text(json.dumps(content))  # as older versions wrote it
    done("evaluate", f"--workdir={run}")
    row = read(run / "evaluation.json")["children"]["hand"]
    assert row["genotype"] == TINY.smallest().as_dict()
    assert "weights" not in row
