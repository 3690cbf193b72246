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
from bignas_tf.training.dry_run import dry_run
from bignas_tf.training.recipe import get_recipe

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
    with pytest.raises(OSError, match="must have . MiB for checkpoints. Received: .* 0 MiB free"):
        dry_run(RECIPE, tmp_path / "run")


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
