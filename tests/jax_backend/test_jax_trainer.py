"""Whole runs under JAX: resumed, handed over to TensorFlow and back, without TensorFlow."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import run_case
from run_case import RECIPE, SPACE
from test_jax_loop import NOISE, assert_same_weights

from bignas_tf.search.results import read_selected
from bignas_tf.training.checkpoints import read_checkpoint
from bignas_tf.training.loop import NonFiniteLossError
from bignas_tf.training.trainer import Trainer

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def no_scalars():
    """TensorBoard needs TensorFlow, and says so once."""
    with pytest.warns(UserWarning, match="TensorBoard scalars need the TensorFlow backend"):
        from bignas_tf.training.logs import ScalarLog

        ScalarLog("unused")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of six steps without a break."""
    workdir = tmp_path_factory.mktemp("straight")
    trainer = Trainer(RECIPE, workdir)
    trainer.run(stop_after=6)
    return workdir, trainer


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("four")
    Trainer(RECIPE, workdir).run(stop_after=4)
    return workdir


@pytest.fixture(scope="module")
def tensorflow(four_steps, tmp_path_factory):
    """TensorFlow goes on with a run to step 6, and begins another up to step 4.

    Returns:
        Weights and scores of the one, folder of the other.
    """
    folder = tmp_path_factory.mktemp("tensorflow")
    shutil.copytree(four_steps, folder / "begun")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    out = folder / "out.npz"
    arguments = [sys.executable, HERE / "run_case.py", folder / "begun", folder / "new", out]
    subprocess.run(list(map(str, arguments)), env=environment, check=True)  # noqa: S603
    with np.load(out) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays.pop("scores"))), folder / "new"


def arrays_of(workdir):
    return read_checkpoint(sorted((workdir / "checkpoints").iterdir())[-1])[0]


def test_a_resumed_run_equals_an_uninterrupted_one(straight, four_steps, tmp_path):
    shutil.copytree(four_steps, tmp_path / "run")
    Trainer(RECIPE, tmp_path / "run").run(stop_after=6)
    expected = arrays_of(straight[0])
    assert_same_weights(arrays_of(tmp_path / "run"), expected, 1e-5, floor=NOISE)
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 6]


@pytest.mark.slow
def test_tensorflow_goes_on_with_a_run_of_jax(straight, tensorflow):
    weights, scores, _ = tensorflow
    workdir, trainer = straight
    assert_same_weights(weights, trainer.supernet.weight_arrays(), floor=NOISE)
    assert scores == pytest.approx(run_case.scores(workdir), abs=1e-3)


@pytest.mark.slow
def test_jax_goes_on_with_a_run_of_tensorflow(straight, tensorflow):
    trainer = Trainer(RECIPE, tensorflow[2])
    assert trainer.step == 4
    trainer.run(stop_after=6)
    expected = straight[1].supernet.weight_arrays()
    assert_same_weights(trainer.supernet.weight_arrays(), expected, floor=NOISE)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(four_steps, tmp_path, monkeypatch):
    shutil.copytree(four_steps, tmp_path / "run")
    trainer = Trainer(RECIPE, tmp_path / "run", loop_options={"steps_per_call": 3})
    losses = [{"biggest": 1.0, "smallest": 1.0}, {"biggest": 1.0, "smallest": float("nan")}]
    monkeypatch.setattr(trainer.loop, "train", lambda chunk, step: [*losses, losses[0]])
    with pytest.raises(
        NonFiniteLossError, match="the smallest child is nan after step 5"
    ) as raised:
        trainer.run()
    assert raised.value.child == "smallest"
    assert Trainer(RECIPE, tmp_path / "run").step == 4


def test_the_commands_run_where_tensorflow_is_not_installed(tmp_path):
    """Trains and selects in a process in which importing TensorFlow fails."""
    script = f"""
import sys
sys.path.insert(0, {str(HERE)!r})

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tf_keras", "ai_edge_litert"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import bignas_tf.backend, bignas_tf.cli
bignas_tf.backend.choose_backend("jax")
import run_case
import bignas_tf.training.recipe as recipe
few = run_case.RECIPE.replace(random_children=0, epochs=1)
recipe.get_recipe = lambda name: few

for command in (
    "train --recipe=tiny",
    "select --budget=mmacs:1 --fine_rounds=0",
):
    argv = ["bignas", *command.split(), "--backend=jax", "--workdir={tmp_path / "run"}"]
    try:
        bignas_tf.cli._main(bignas_tf.cli._parse(argv))
    except SystemExit as end:
        assert not end.code, end.code
assert "tensorflow" not in sys.modules
"""
    finished = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert "no accelerator found" in finished.stdout
    (chosen,) = read_selected(tmp_path / "run" / "select")
    assert chosen["mmacs"] <= 1
    assert len(arrays_of(tmp_path / "run")) > len(SPACE.ops())


@pytest.mark.parametrize(
    ("backend", "option", "having"),
    [("tensorflow", "--remat", "jax"), ("jax", "--jit_compile", "tensorflow")],
)
def test_options_of_the_other_backend_are_refused(backend, option, having, tmp_path):
    from bignas_tf import cli
    from bignas_tf.commands.train import loop_options

    arguments = cli._parse(
        ["bignas", "train", "--recipe=digits", f"--workdir={tmp_path}", f"--backend={backend}"]
        + [option]
    )
    name = option.strip("-")
    with pytest.raises(ValueError, match=f"`{name}` must be left out without --backend={having}"):
        loop_options(arguments)
