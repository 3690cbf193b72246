"""Twenty steps of training that every backend repeats; TensorFlow's as a program.

KERAS_BACKEND=tensorflow python training_case.py OUT.npz CASE ...
"""

from __future__ import annotations

import sys

import keras
import numpy as np

from bignas_tf.blocks import SqueezeExcitation
from bignas_tf.data import AugmentationPolicy, Split
from bignas_tf.data.batches import BatchPlan
from bignas_tf.spaces import MBConvSpace, Stage
from bignas_tf.supernet import Supernet
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.rule import SandwichRule

SPACE = MBConvSpace(
    name="tiny",
    resolution_choices=(6, 8, 10),
    training_resolutions=(6, 10),
    stem_widths=(4, 8),
    stem_strides=1,
    stages=(Stage((8, 12), (1, 2), (3, 5), (2, 3), 2, SqueezeExcitation(divisor=2)),),
    head_widths=(16, 24),
    dropout=0.0,
    classes=7,
)
BATCH, STEPS = 16, 20
OPTIMIZERS = {
    "sgd": {"kind": "sgd", "momentum": 0.9, "nesterov": True},
    "rmsprop": {"kind": "rmsprop"},
}
POLICY = AugmentationPolicy(flip=True, shift=2, cutout=4, mixup=0.5)


def make_plan(policy: AugmentationPolicy = POLICY, images: int = 70) -> BatchPlan:
    """Batches of random images, four an epoch."""
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, SPACE.classes, images).astype(np.int32),
        rng.integers(0, 256, (images, 10, 10, 3), dtype=np.uint8),
    )
    return BatchPlan(split, batch_size=BATCH, policy=policy, seed=5)


def make_supernet(space: MBConvSpace = SPACE, **options) -> Supernet:
    """No gamma at zero, where most of a network is switched off."""
    supernet = Supernet(space, seed=1, zero_gamma=False, **options)
    rng = np.random.default_rng(2)
    arrays = supernet.weight_arrays()
    supernet.assign(
        {
            path: array + rng.normal(0, 0.1, array.shape).astype(array.dtype)
            for path, array in arrays.items()
        }
    )
    return supernet


def make_loop(loop_class, supernet: Supernet, optimizer="sgd", ema=0.0, rule=None, **options):
    """A loop on `supernet`, with every part of the loss switched on."""
    rule = rule or SandwichRule(supernet.space, random_children=2, label_smoothing=0.1)
    built = build_optimizer(OPTIMIZERS[optimizer], 0.02, ema)
    return loop_class(supernet, rule, built, batch_size=BATCH, weight_decay=1e-3, seed=4, **options)


def taught_rule(space: MBConvSpace = SPACE) -> SandwichRule:
    """Biggest and smallest alone, the biggest taught by the colours of a few pixels."""

    def teacher(images):
        return keras.ops.reshape(images, (BATCH, -1))[:, : space.classes] * 3.0

    return SandwichRule(space, random_children=0, teacher=teacher)


def run(loop, plan: BatchPlan, start: int = 0, last: int = STEPS) -> list[dict[str, float]]:
    """Trains; returns the losses of each step and leaves the weights in the supernet."""
    step, losses = start, []
    for chunk in loop.chunks(plan, start, last):
        losses += loop.train(chunk, step)
        step = start + len(losses)
    loop.publish()
    return losses


def main() -> None:
    import tensorflow as tf

    from bignas_tf.training.tensorflow_loop import TensorflowLoop

    found = {}
    cases = {
        "sliced": ("sliced", "sgd", STEPS, None),
        "masked": ("masked", "sgd", STEPS, None),
        "rmsprop": ("sliced", "rmsprop", 1, None),
        "taught": ("sliced", "sgd", 2, taught_rule()),
    }
    out, *names = sys.argv[1:]
    for name in names:
        mode, optimizer, steps, rule = cases[name]
        # Tracing takes longer than a few steps; masked mode does it per pair of resolutions.
        tf.config.run_functions_eagerly(name != "sliced")
        supernet = make_supernet()
        ema = 0.8 if optimizer == "rmsprop" else 0.0
        loop = make_loop(TensorflowLoop, supernet, optimizer, ema, rule, varying=mode)
        losses = run(loop, make_plan(), last=steps)
        found[f"{name}/losses"] = np.array([list(step.values()) for step in losses])
        for path, array in supernet.weight_arrays().items():
            found[f"{name}/weights/{path}"] = array
        for position, variable in enumerate(loop.optimizer.variables):
            found[f"{name}/optimizer/{position}"] = keras.ops.convert_to_numpy(variable.value)
    np.savez(out, **found)


if __name__ == "__main__":
    main()
