"""Runs whose biggest child learns from another run's."""

import numpy as np
import pytest

from bignas_tf.spaces import get_space
from bignas_tf.training.checkpoints import CheckpointError, CheckpointManager, read_checkpoint
from bignas_tf.training.recipe import get_recipe
from bignas_tf.training.trainer import Trainer

FEW = {gene.name: gene.choices[:1] for gene in get_space("digits").genes}
RECIPE = get_recipe("digits").replace(restrict=FEW, held_out=1300, batch_size=8, random_children=0)
# Eager steps draw tf.data's own warning that it is not run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


def test_a_run_in_bfloat16_learns_from_a_teacher_and_goes_on_with_the_same_only(tmp_path, eager):
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    Trainer(RECIPE, teacher).run(stop_after=1)
    student = RECIPE.replace(teacher=str(teacher), precision="bfloat16", seed=1)
    assert Trainer(student, run).run(stop_after=1) == 1
    manager = CheckpointManager(teacher / "checkpoints")
    arrays, metadata = read_checkpoint(manager.latest())
    recorded = read_checkpoint(CheckpointManager(run / "checkpoints").latest())[1]["teacher"]
    assert (recorded["file"], recorded["step"]) == (manager.latest().name, 1)
    assert Trainer(student, run).step == 1
    manager.save(2, {k: np.array(v) for k, v in arrays.items()}, {**metadata, "step": 2})
    with pytest.raises(CheckpointError, match="another teacher's checkpoint.*'step': 2.*'step': 1"):
        Trainer(student, run)
