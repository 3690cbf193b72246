"""A tiny space, a run of it, and the commands in this process, for the tests of the commands."""

import contextlib
import dataclasses
import io
import json
import re
import sys

import pytest
import tensorflow as tf
import tiny_run

import bignas_tf.cli as cli
from bignas_tf import cost
from bignas_tf.search.results import read_selected
from bignas_tf.spaces import SPACES

TINY = dataclasses.replace(tiny_run.TINY, head_widths=(16,))
SMALL, BIG = (cost.count(g.spec()).mmacs for g in (TINY.smallest(), TINY.biggest()))
TRAIN = (
    "train",
    "--recipe=digits",
    "--set=space=tiny",
    "--set=epochs=3",
    "--set=held_out=1200",
    "--set=calibration_images=64",
    '--set=schedule={"kind": "cosine", "initial": 0.1}',
)
# The same recipe with too few steps to matter.
SHORT = (*TRAIN, "--set=epochs=1", "--set=batch_size=200")

# Keras 3.15 converts its variables in a way that NumPy 2 deprecates; eager steps draw
# tf.data's own warning that it is not run eagerly.
WARNINGS = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Even though the `tf.config"),
]


def registered():
    """`TINY` under its name, for as long as a fixture lives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES, "tiny", lambda: TINY)
        yield


def bignas(*arguments):
    """Runs a command in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["bignas", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", argv)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            # A few steps run faster as they are written than traced.
            tf.config.run_functions_eagerly(arguments[0] == "train")
            try:
                cli._main(cli._parse(argv))
            finally:
                tf.config.run_functions_eagerly(False)
    return stop.value.code, out.getvalue(), err.getvalue()


def done(*arguments):
    status, out, err = bignas(*arguments)
    assert status == 0, err
    return out


def assert_refused(result, message):
    status, _, err = result
    assert status == 2, err
    assert re.search(message, err.splitlines()[-1]), err.splitlines()[-1]


def read(path):
    return json.loads(path.read_text())


def selected(workdir):
    entries = read_selected(workdir / "select")
    return {entry["name"]: TINY.genotype(entry["genotype"]) for entry in entries}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def train(tmp_path_factory):
    """The folder of a run with nothing but its training."""
    workdir = tmp_path_factory.mktemp("trained")
    done(*TRAIN, f"--workdir={workdir}")
    return workdir
