r"""CIFAR-10 from a folder of images, the `cifar` space: four children a step, 40 epochs.

Not yet run to its end; two CPU cores need an estimated seven hours.

bignas train --recipe=cifar10 --workdir=runs/cifar10 --data=folder:/data/cifar10
"""

from bignas_tf.training.recipe import Recipe

RECIPE = Recipe(
    name="cifar10",
    space="cifar",
    image_size=32,
    epochs=40,
    batch_size=128,
    optimizer={"kind": "sgd", "momentum": 0.9, "nesterov": True},
    schedule={"kind": "exponential_to_ending", "initial": 0.2, "warmup_epochs": 1},
    augmentation={"flip": True, "shift": 4, "fill": "reflect"},
    label_smoothing=0.1,
    weight_decay=1e-4,
    held_out=5000,
    calibration_images=2048,
    evaluate_every=1,
)
