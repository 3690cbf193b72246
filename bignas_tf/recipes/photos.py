r"""Photographs of your own, in the space `mobile`: children of 13 to 96 MMACs, 96 to 160 pixels.

Chosen by us and tuned on nothing: a start, for some hundreds of images or more, from which
--set changes what does not fit. A tenth of the training images is held out for selection.
Many images are seen often enough in fewer epochs: --set=epochs=30.

Run once, with --set=epochs=20, on 1,350 large photographs of ten classes that were made of
CIFAR-10's (benchmarks/large_photographs.py): 16 minutes on two cores of an AMD EPYC with AVX-512,
other work beside it, then 10 for select. Too few images and epochs to learn much from nothing: the
children have 20 to 22 % of 500 test images right, where chance has 10 %. Nobody has run it on
real photographs, or for 100 epochs.

bignas train --recipe=photos --workdir=runs/mine --data=folder:/path/to/images
"""

from bignas_tf.training.recipe import Recipe

RECIPE = Recipe(
    name="photos",
    space="mobile",
    image_size=160,
    epochs=100,
    batch_size=64,
    optimizer={"kind": "sgd", "momentum": 0.9, "nesterov": True},
    schedule={"kind": "exponential_to_ending", "initial": 0.05, "warmup_epochs": 5},
    augmentation={"crop": 0.25, "flip": True, "operations": "randaugment"},
    label_smoothing=0.1,
    weight_decay=1e-4,
    ema=0.99,
    held_out=0.1,
    calibration_images=2048,
    evaluate_every=5,
)
