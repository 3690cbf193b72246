import contextlib
import itertools
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import bignas_tf.cli as cli
import bignas_tf.training.dry_run as dry_run_module
from bignas_tf.cost import count
from bignas_tf.data import BrokenImageError
from bignas_tf.spaces import get_space
from bignas_tf.training.checkpoints import CheckpointError
from bignas_tf.training.dry_run import dry_run
from bignas_tf.training.recipe import get_recipe
from bignas_tf.training.state import pack
from bignas_tf.training.tensorflow_loop import TensorflowLoop
from bignas_tf.training.trainer import Trainer

FEW = {gene.name: gene.choices[:1] for gene in get_space("digits").genes}
RECIPE = get_recipe("digits").replace(
    restrict=FEW | {"resolution": (8, 12)},
    held_out=1000,
    epochs=7,
    random_children=0,
    evaluate_every=1,
)
# Eager steps draw tf.data's own warning that it is not run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


def number(pattern, text):
    (found,) = re.findall(pattern, text)
    return float(found.replace(",", ""))


def test_a_dry_run_says_what_the_run_would_do_and_writes_nothing(tmp_path, monkeypatch, eager):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run_module, "available_memory", lambda: 2**20)
    monkeypatch.setattr(dry_run_module, "_process_held", lambda: 100 * 2**20)
    monkeypatch.setattr(dry_run_module, "_process_peak", lambda: 300 * 2**20)
    found = dry_run(RECIPE, "runs/digits")
    assert not list(tmp_path.iterdir())
    assert list(found) == ["data", "space", "step", "input", "memory", "disk", "time"]
    assert "digits: 10 classes of 139 to 146 training images; 438 to train on" in found["data"]
    assert "1000 held out, 359 to test; in memory; 0 bad ones" in found["data"]
    assert re.match(r"digits: \S+ networks, .*trains biggest 12 px, smallest 8 px$", found["space"])
    # 13 batches of 32; the estimate is that many of the slower of step and reading.
    speed = min(
        number(r"a step .*: (\d+) images/s", found["step"]),
        number(r"^(\d+) images/s are read", found["input"]),
    )
    length, unit = re.match(r"(\S+) (s|min) an epoch of 13 steps", found["time"]).groups()
    seconds = float(length) * {"s": 1, "min": 60}[unit]
    assert seconds == pytest.approx(13 * 32 / speed, rel=0.1, abs=0.1)
    too_much = "peak of the process 300 MiB, which is more than the 101 MiB that it may take"
    assert too_much in found["memory"]
    # 438 images to calibrate with and 1000 to score on, each 12 x 12, and what lives of them.
    images_mib = 1438 * 12 * 12 * 4 / 2**20
    needed = number(r"about (\d+) MiB more while the biggest child is evaluated", found["memory"])
    peak = count(RECIPE.build_space().biggest().spec()).peak_activation_bytes
    assert images_mib + 1438 * peak / 2**20 < needed < images_mib + 2 * 1438 * peak / 2**20 + 1
    assert found["memory"].endswith("more than the 1 MiB that are available")
    assert "7 epochs" in found["time"]


def test_a_peak_that_there_is_room_for_is_said_with_it():
    room = dry_run_module._room()
    assert room > dry_run_module._process_held() > 50 * 2**20
    (text,) = dry_run_module._process_memory(2**50)
    peak, most = map(int, re.fullmatch(r"peak of .* (\d+) MiB of (\d+) MiB .*", text).groups())
    assert 50 < peak < most == 2**30


def test_a_disk_without_room_for_checkpoints_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(dry_run_module.shutil, "disk_usage", lambda place: usage)
    message = "must have . MiB more for checkpoints. Received: .* 0 MiB free"
    with pytest.raises(OSError, match=message):
        dry_run(RECIPE, tmp_path / "run")


@pytest.fixture
def trainer(tmp_path):
    """Of batches of 600 with mixup, each image with another of its batch."""
    recipe = RECIPE.replace(held_out=0, evaluate_every=0, batch_size=600)
    return Trainer(recipe.replace(augmentation={"mixup": 0.2}), tmp_path / "run")


def test_checkpoints_that_lie_there_already_are_no_room_that_is_still_needed(
    tmp_path, monkeypatch, trainer
):
    usage = shutil.disk_usage(tmp_path)
    size = sum(array.nbytes for array in pack(trainer.supernet, trainer.optimizer).values())
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir()

    def needs(checkpoints):
        for free, enough in ((checkpoints * size, True), (checkpoints * size - 1, False)):
            monkeypatch.setattr(
                shutil, "disk_usage", lambda _, free=free: usage._replace(free=free)
            )
            with contextlib.nullcontext() if enough else pytest.raises(OSError, match="more for"):
                dry_run_module._disk(trainer, tmp_path / "run", tmp_path)

    needs(3 + 1 + 2)
    for names, more in (
        (["step_00000010", "best"], 4),
        ([f"step_0000002{n}" for n in range(7)], 1),
    ):
        for name in names:
            (checkpoints / f"{name}.safetensors").write_bytes(bytes(size))
        needs(more)


def test_a_dry_run_of_a_begun_run_says_where_it_resumes_or_why_it_cannot(tmp_path, eager):
    Trainer(RECIPE, tmp_path).run(stop_after=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert dry_run(RECIPE, tmp_path)["time"].endswith("; the run resumes after step 2 of 91")
    with pytest.raises(CheckpointError, match=f"run in {tmp_path} was .* another batch_size"):
        dry_run(RECIPE.replace(batch_size=16), tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("worker", "workers"), [(0, 1), (1, 2)])
def test_what_is_read_for_a_worker_is_counted_with_what_is_mixed_into_it(
    monkeypatch, trainer, worker, workers
):
    monkeypatch.setattr(TensorflowLoop, "worker", worker)
    monkeypatch.setattr(TensorflowLoop, "workers", workers)
    clock = itertools.count()
    monkeypatch.setattr(dry_run_module.time, "perf_counter", lambda: next(clock))
    read = []
    split = trainer.plan.split
    own_read = type(split).read
    monkeypatch.setattr(
        type(split), "read", lambda *given: read.extend(given[1]) or own_read(*given)
    )
    speed, of_a_step = dry_run_module._reading(trainer)
    # In one second 256 images and their partners; of two workers each reads the other's too.
    assert (speed, len(read), of_a_step) == (512, 512, 600)
    assert list(read[:256]) == list(trainer.plan.indices(1)[300 * worker :][:256])


def test_workers_end_a_dry_run_after_the_same_step(monkeypatch, trainer):
    asked, steps = [], []

    def gather(values):
        asked.append(values.tolist())
        other = values + (len(asked) == 3)  # has enough earlier than this one
        return np.stack([values, other])

    monkeypatch.setattr(trainer.loop, "gather", gather)
    monkeypatch.setattr(trainer.loop, "train", lambda chunk, step: steps.append(step) or [{}])
    dry_run_module._steps(trainer)
    assert (steps, asked) == ([0, 1, 2], [[0.0]] * 3)


def test_replicas_and_mixup_are_dry_run_too(tmp_path, two_replicas):
    one_child = FEW | {"resolution": (8,)}
    recipe = RECIPE.replace(restrict=one_child, augmentation={"mixup": 0.2}, evaluate_every=0)
    found = dry_run(recipe, tmp_path, loop_options={"strategy": two_replicas})
    rates = number(r": (\d+) images/s$", found["step"]), number(r"steps use (\d+)", found["input"])
    assert rates[0] == rates[1] > 0
    assert not list(tmp_path.iterdir())


def test_a_workdir_that_cannot_be_made_is_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="`workdir` must be a folder.*Received: .*/run"):
        dry_run(RECIPE, tmp_path / "file" / "run", data="folder:/nowhere")
    assert os.listdir(tmp_path) == ["file"]


def test_a_broken_image_of_the_sample_is_refused_by_name(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.fromarray(np.full((9, 9), 9 * i, np.uint8)).save(tmp_path / name / f"{i}.jpg")
    for i in range(20):
        with open(tmp_path / "bee" / f"{i}.jpg", "r+b") as file:
            file.truncate(150)
    recipe = RECIPE.replace(held_out=0, batch_size=4, augmentation={"crop": 0.5})
    with pytest.raises(BrokenImageError, match=r"bee/\d+.jpg"):
        dry_run(recipe, tmp_path / "run", data=f"folder:{tmp_path}")


def test_the_command_prints_what_was_found(monkeypatch, capsys):
    asked = {}

    def found(recipe, workdir, **options):
        asked.update(recipe=recipe, workdir=workdir, **options)
        return {"data": "few", "time": "long"}

    monkeypatch.setattr(dry_run_module, "dry_run", found)
    flags = ["--recipe=cifar10", "--workdir=w", "--data=folder:x", "--on_bad_image=skip"]
    arguments = cli._parse(["bignas", "train", *flags, "--dry_run"])
    assert arguments.main(arguments) == 0
    assert capsys.readouterr().out == "data    few\ntime    long\n"
    assert asked["recipe"] == get_recipe("cifar10").replace(on_bad_image="skip")
    assert (asked["workdir"], asked["data"]) == ("w", "folder:x")
