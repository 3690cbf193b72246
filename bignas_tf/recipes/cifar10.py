r"""CIFAR-10 from a folder of images, the `cifar` space: four children a step, 20 epochs.

One core of an AMD EPYC with AVX-512, 70 minutes: the biggest child has 87.2 % of the test images
right, the smallest 82.3 %; some of those between are in the zoo (zoo/cards/BigNASCifar.md). The
learning rate comes from runs of four epochs in the space `cifar_small` (docs/evidence.md,
section 2).

bignas train --recipe=cifar10 --workdir=runs/cifar10 --data=folder:/data/cifar10
"""

from bignas_tf.training.recipe import Recipe

RECIPE = Recipe(
    name="cifar10",
    space="cifar",
    image_size=32,
    epochs=20,
    batch_size=64,
    optimizer={"kind": "sgd", "momentum": 0.9, "nesterov": True},
    schedule={"kind": "exponential_to_ending", "initial": 0.8, "warmup_epochs": 1},
    augmentation={"flip": True, "shift": 4, "fill": "reflect"},
    label_smoothing=0.1,
    weight_decay=1e-4,
    ema=0.999,
    held_out=5000,
    calibration_images=2048,
    evaluate_every=1,
)
