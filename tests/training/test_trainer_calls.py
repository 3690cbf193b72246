"""Runs whose loop makes several steps to a call."""

import numpy as np
import pytest
import tensorflow as tf
from trainer_case import RECIPE, checkpoint, register, steps_saved

from bignas_tf.training.loop import NonFiniteLossError
from bignas_tf.training.rule import SandwichRule
from bignas_tf.training.trainer import Trainer

# Eager steps would draw tf.data's own warning that it is not run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


@pytest.fixture(autouse=True)
def tiny_by_name(monkeypatch):
    register(monkeypatch)


def test_a_loss_that_is_not_finite_in_the_middle_of_a_call_names_its_step_and_saves_none_of_it(
    tmp_path, monkeypatch, eager
):
    # Four steps an epoch, with a checkpoint after it: calls of 3, 1, 3 and 1.
    trainer = Trainer(RECIPE, tmp_path, loop_options={"steps_per_call": 3})
    loss, made = SandwichRule.loss, trainer.optimizer.iterations

    def diverges(self, role, *given):
        factor = np.nan if role == "random" else 1.0
        return loss(self, role, *given) * tf.where(made == 5, factor, 1.0)

    monkeypatch.setattr(SandwichRule, "loss", diverges)
    with pytest.raises(NonFiniteLossError, match="random1 child is nan after step 5") as caught:
        trainer.run()
    drawn = {term.name: term.genotype for term in trainer.loop.rule.plan(RECIPE.seed, 5)}
    assert str(drawn["random1"].as_dict()) in str(caught.value)
    assert made.numpy() == 7  # the call was made to its end
    assert steps_saved(tmp_path) == [4]
    arrays, metadata = checkpoint(tmp_path, 4)
    assert metadata["step"] == 4
    assert all(np.isfinite(array).all() for array in arrays.values())
