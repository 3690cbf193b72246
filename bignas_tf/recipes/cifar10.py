r"""CIFAR-10 from a folder of images, the `cifar` space: four children a step, 40 epochs.

Batch and rate were chosen by runs of three epochs (warm-up 0.3) in the space `cifar_small`, one
seed each: smallest and biggest child had 57.3 and 64.8 % of the held-out training images right
at batch 64 and rate 0.2; at batch 128 45.4 and 50.5 % at 0.05 (weight decay 5e-4), 54.8 and
60.9 % at 0.2, 57.2 and 64.6 % at 0.4.

bignas train --recipe=cifar10 --workdir=runs/cifar10 --data=folder:/data/cifar10
"""

from bignas_tf.training.recipe import Recipe

RECIPE = Recipe(
    name="cifar10",
    space="cifar",
    image_size=32,
    epochs=40,
    batch_size=64,
    optimizer={"kind": "sgd", "momentum": 0.9, "nesterov": True},
    schedule={"kind": "exponential_to_ending", "initial": 0.2, "warmup_epochs": 1},
    augmentation={"flip": True, "shift": 4, "fill": "reflect"},
    label_smoothing=0.1,
    weight_decay=1e-4,
    held_out=5000,
    calibration_images=2048,
    evaluate_every=1,
)
