r"""Handwritten digits of scikit-learn, 8 pixels: the quickstart.

No augmentation: the digits are centred already, and a shift by one of eight pixels is large.

bignas train --recipe=digits --workdir=runs/digits
"""

from bignas_tf.training.recipe import Recipe

RECIPE = Recipe(
    name="digits",
    space="digits",
    data="digits",
    image_size=8,
    epochs=20,
    batch_size=32,
    optimizer={"kind": "sgd", "momentum": 0.9, "nesterov": True},
    schedule={"kind": "exponential_to_ending", "initial": 0.05, "warmup_epochs": 1},
    label_smoothing=0.1,
    weight_decay=1e-4,
    held_out=200,
    calibration_images=512,
)
