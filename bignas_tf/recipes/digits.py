r"""Handwritten digits of scikit-learn, 8 pixels: the quickstart.

bignas train --recipe=digits --workdir=runs/digits
"""

from bignas_tf.training.recipe import Recipe

RECIPE = Recipe(
    name="digits",
    space="digits",
    data="digits",
    image_size=8,
    epochs=32,
    batch_size=64,
    optimizer={"kind": "sgd", "momentum": 0.9, "nesterov": True},
    schedule={"kind": "exponential_to_ending", "initial": 0.1, "warmup_epochs": 2},
    augmentation={"shift": 1, "fill": "constant", "value": 0},
    label_smoothing=0.1,
    weight_decay=1e-4,
    held_out=300,
    calibration_images=768,
)
