"""A process that trains a tiny run on a device layout; for tests.

Its arguments: a JSON object with `strategy`, `replicas`, `workdir`, `recipe` (fields of the recipe)
and options of the loop, and `seconds_to_sync`, of a slow disk. TF_CONFIG says which worker it is.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "2"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(settings):
    from bignas_tf.training.layout import build_strategy

    strategy = build_strategy(settings.pop("strategy"), settings.pop("replicas", None))
    from tiny_run import TINY, tiny_recipe

    import bignas_tf.training.trainer as trainer_module
    from bignas_tf.blocks import SqueezeExcitation
    from bignas_tf.spaces import SPACES, Stage
    from bignas_tf.training.trainer import Trainer

    stages = (
        Stage((4, 8), (1, 2), (3, 5), (2,), 2, SqueezeExcitation(divisor=2)),
        Stage((8,), (1, 3), (3,), (2,), 1),
    )
    space = dataclasses.replace(TINY, stages=stages, dropout=0.3)
    SPACES["tiny"] = lambda: space
    trainer_module.LOG_EVERY = 1
    recipe = tiny_recipe(
        epochs=1,
        batch_size=24,
        schedule={"kind": "cosine", "initial": 0.2, "warmup_epochs": 0.1},
        augmentation={"shift": 1, "flip": True, "mixup": 0.2},
        zero_gamma=False,
        held_out=958,  # 480 are left: 20 steps an epoch
        calibration_images=100,
        evaluate_every=1,
    )
    workdir, stop_after = settings.pop("workdir"), settings.pop("stop_after", None)
    slow_down(settings.pop("seconds_to_sync", 0.0))
    trainer = Trainer(
        recipe.replace(**settings.pop("recipe", {})),
        workdir,
        loop_options={**settings, "strategy": strategy},
    )
    trainer.run(stop_after)
    print("trained", trainer.step, flush=True)


def slow_down(seconds):
    """Has every new file, such as a checkpoint, under its temporary name for so long."""
    from bignas_tf import files

    sync = files.sync

    def slow(path):
        time.sleep(seconds)
        sync(path)

    files.sync = slow


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
