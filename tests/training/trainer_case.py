"""A tiny run on the digits or on a folder, and what it leaves, for tests of the trainer."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_run

from bignas_tf.spaces import SPACES
from bignas_tf.training import trainer
from bignas_tf.training.checkpoints import CheckpointManager, read_checkpoint

TINY = dataclasses.replace(tiny_run.TINY, dropout=0.5)


def register(patch):
    """Makes `TINY` known by its name, and every step logged."""
    patch.setitem(SPACES, "tiny", lambda: TINY)
    patch.setattr(trainer, "LOG_EVERY", 1)


with pytest.MonkeyPatch.context() as patch:
    register(patch)
    RECIPE = tiny_run.tiny_recipe()
    FOLDER = RECIPE.replace(data=None, batch_size=4, held_out=0, epochs=4)


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
