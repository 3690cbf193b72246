"""Sweeps of tiny runs in this process, and their results, for the tests of `bignas sweep`."""

import contextlib
import csv
import io
import json
import types

import pytest
import tensorflow as tf
from commands_fixture import BIG, SMALL, registered

import bignas_tf.cli as cli
from bignas_tf.sweep import runs
from bignas_tf.training.tensorflow_loop import TensorflowLoop

STEPS = 4  # of a run: 138 of the digits are left to train on, two batches of them an epoch
MIDDLE = (SMALL + BIG) / 2
SET = {
    "space": "tiny",
    "epochs": 2,
    "batch_size": 64,
    "held_out": 1300,
    "calibration_images": 64,
    "schedule": {"kind": "cosine", "initial": 0.1},
}
FILE = {
    "recipe": "digits",
    "set": SET,
    "variants": {"full": {}, "plain": {"distillation": False, "random_children": 1}},
    "seeds": [0, 3],
    "select": {"budget": f"mmacs:{MIDDLE:.6f},{BIG:.6f}", "names": "s,l", "fine_rounds": 0},
}
ONE = {"recipe": "digits", "set": SET, "variants": {"one": {}}}


def eagerly_registered():
    """`TINY` under its name, and steps run as they are written, for as long as a fixture lives."""
    tf.config.run_functions_eagerly(True)
    yield from registered()
    tf.config.run_functions_eagerly(False)


class Steps:
    """Counts training steps, which are all that takes time, and does something at one."""

    def __init__(self, monkeypatch, at=None, what=None):
        self.made = 0
        train = TensorflowLoop.train

        def counted(loop, chunk, step):
            self.made += 1
            if self.made == at:
                what()
            return train(loop, chunk, step)

        monkeypatch.setattr(TensorflowLoop, "train", counted)
        monkeypatch.setattr(runs, "time", types.SimpleNamespace(monotonic=lambda: self.made))


def kill():
    raise KeyboardInterrupt


def call(folder, content, *flags):
    """The command: exit code, stdout, stderr."""
    path = folder / "sweep_file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        argv = ["bignas", "sweep", f"--file={path}", f"--workdir={folder / 'runs'}", *flags]
        with pytest.raises(SystemExit) as stop:
            cli._main(cli._parse(argv))
    return stop.value.code, out.getvalue(), err.getvalue()


def done(folder, content, *flags):
    status, out, err = call(folder, content, *flags)
    assert status == 0, err
    return out


def rows(folder):
    with (folder / "runs" / "results.csv").open(newline="") as text:
        found = list(csv.DictReader(text))
    for row in found:
        assert row.pop("finished").endswith("+00:00")
    return found
