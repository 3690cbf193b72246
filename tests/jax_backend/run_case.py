"""A tiny run on the digits that every backend can start, go on with and evaluate.

KERAS_BACKEND=... python run_case.py BEGUN NEW OUT.npz   goes on with one run, begins another
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import training_case

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tiny_run import tiny_recipe

from bignas_tf.masked_evaluation import child_evaluator
from bignas_tf.spaces import SPACES
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.state import load_trained
from bignas_tf.training.trainer import Trainer

SPACE = dataclasses.replace(training_case.SPACE, classes=10, input_channels=1)
SPACES["tiny"] = lambda: SPACE
RECIPE = tiny_recipe(epochs=4, augmentation={"shift": 1, "flip": True, "mixup": 0.2}, ema=0.5)


def scores(workdir) -> dict[str, float]:
    """Accuracy and loss of some children on held-out images."""
    trained = load_trained(workdir)
    data = load_run_data(trained.recipe)
    space = trained.supernet.space
    evaluator = child_evaluator(trained.supernet, data.calibration, data.held_out.take(range(256)))
    found = evaluator.score([space.smallest(), space.biggest(), *space.sample(2, seed=0)])
    return {f"{i}/{key}": row[key] for i, row in enumerate(found) for key in ("accuracy", "loss")}


def main() -> None:
    begun, new, out = sys.argv[1:]
    trainer = Trainer(RECIPE, begun)
    trainer.run(stop_after=6)
    weights = trainer.supernet.weight_arrays()
    np.savez(out, scores=json.dumps(scores(begun)), **weights)
    Trainer(RECIPE, new).run(stop_after=4)


if __name__ == "__main__":
    main()
