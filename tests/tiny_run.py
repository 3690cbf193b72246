"""A tiny space, and a recipe of a run in it, that tests of several folders change."""

import numpy as np
from PIL import Image

from bignas_tf.spaces import MBConvSpace, Stage
from bignas_tf.training.recipe import Recipe

TINY = MBConvSpace(
    name="tiny",
    resolution_choices=(6, 8),
    stem_widths=(4,),
    stem_strides=1,
    stages=(Stage((4, 8), (1, 2), (3,), (2,), 2),),
    head_widths=(8,),
    classes=10,
    input_channels=1,
)


def tiny_recipe(**changes) -> Recipe:
    """Of space "tiny", which has to be registered; 1,438 training digits, of which 138 are left:
    four steps an epoch.
    """
    fields = {
        "name": "tiny",
        "space": "tiny",
        "data": "digits",
        "image_size": 8,
        "epochs": 2,
        "batch_size": 32,
        "optimizer": {"kind": "sgd", "momentum": 0.9},
        "schedule": {"kind": "cosine", "initial": 0.1, "warmup_epochs": 0.5},
        "augmentation": {"shift": 1, "flip": True},
        "label_smoothing": 0.1,
        "weight_decay": 1e-3,
        "held_out": 1300,
        "calibration_images": 64,
    }
    return Recipe(**{**fields, **changes})


def image_folder(root, classes="ab", count=8):
    """Writes `count` images of noise for each class, of 8 pixels; returns them as `data`."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return f"folder:{root}"
