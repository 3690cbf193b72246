"""What both backends score, and a program that scores it on TensorFlow.

`KERAS_BACKEND=tensorflow python scored.py FILE` writes FILE, an npz.
"""

import dataclasses
import functools
import sys

import numpy as np
from supernets import SPACES, attentive_space, kernels_space, randomized

from bignas_tf.data import Split
from bignas_tf.evaluation import ChildEvaluator, predict, prepared
from bignas_tf.spaces import Genotype, MBConvSpace
from bignas_tf.supernet import Supernet

RESOLUTIONS = (9, 12)
CALIBRATION, VALIDATION = 37, 53


def space(name: str) -> MBConvSpace:
    """Tiny spaces at two resolutions; fewer stages compile faster."""
    if name == "attentive":
        whole = attentive_space(resolution_choices=RESOLUTIONS, classes=5)
        return dataclasses.replace(whole, stages=whole.stages[:2])
    stages = {
        "kernels": SPACES["kernels"]().stages,
        "hidden_sigmoid": SPACES["hidden_sigmoid"]().stages[:2],
        "one_stage": SPACES["kernels"]().stages[:1],
    }
    return kernels_space(stages=stages[name], resolution_choices=RESOLUTIONS)


@functools.cache
def supernet(name: str, dtype: str = "float32") -> Supernet:
    """Weights are all random; tests must not change them."""
    return randomized(space(name), dtype)


def split(count: int, seed: int, size: int = 11) -> Split:
    """Noise that is not centred: a forgotten mean would not show otherwise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count).astype(np.int32)
    return Split(labels, rng.integers(60, 256, (count, size, size, 3)).astype(np.uint8))


def splits(size: int = 11) -> tuple[Split, Split]:
    """Calibration and validation."""
    return split(CALIBRATION, seed=0, size=size), split(VALIDATION, seed=1, size=size)


def genotypes(name: str, samples: int = 2) -> list[Genotype]:
    """Smallest, biggest and others at every resolution."""
    of = space(name)
    found = [of.smallest(), of.biggest(), *of.sample(samples, seed=5)]
    return [genotype.replace(resolution=size) for size in RESOLUTIONS for genotype in found]


def child_logits(evaluator: ChildEvaluator, genotype: Genotype, images: Split) -> np.ndarray:
    """Logits of the calibrated child on all images."""
    weights = evaluator.finished_weights(genotype)
    inputs = prepared(images, genotype["resolution"])
    return predict(genotype.spec(), weights, inputs.astype(evaluator.supernet.compute_dtype))


def main() -> None:
    calibration, validation = splits()
    evaluator = ChildEvaluator(supernet("kernels"), calibration, validation)
    arrays = {}
    for number, genotype in enumerate(genotypes("kernels")):
        for path, value in evaluator.finished_weights(genotype).items():
            arrays[f"{number}/{path}"] = value
        arrays[f"{number}/logits"] = child_logits(evaluator, genotype, validation)
    np.savez(sys.argv[1], **arrays)


if __name__ == "__main__":
    main()
