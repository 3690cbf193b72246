"""Does the TFLite file compute what the Keras model computes?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

_BATCH = 16  # images per call of the Keras model: bounds the memory
# Below this spread, relative to the scale, an untrained network gives all images nearly the same
# outputs, and rounding may well exceed what little differs.
_SPREAD = 0.01


class VerificationError(ValueError):
    """The outputs of the Keras model and of the TFLite file do not agree."""


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a kind of quantization may move the outputs.

    Differences are relative to the scale of the outputs, the largest absolute
    value that the Keras model gives.

    Attributes:
        max_difference: float, of any output.
        mean_difference: float, over all outputs.
        agreement: float in [0, 1], share of the images whose top class must agree.
        tie: float, relative to the range of one image's outputs. A class that the
            Keras model scores within `tie` of its best counts as agreeing: an
            untrained network has many such classes, and no rounding can keep
            their order.
    """

    max_difference: float
    mean_difference: float
    agreement: float
    tie: float


@dataclasses.dataclass(frozen=True)
class Verification:
    """The comparison of two sets of outputs.

    Attributes:
        images: int, how many were compared.
        scale: float, the largest absolute output of the Keras model.
        spread: float, mean absolute deviation of the Keras model's outputs from their
            mean over the images.
        max_difference: float, the largest absolute difference, in units of the outputs.
        mean_difference: float, the mean absolute difference, in units of the outputs.
        agreement: float in [0, 1], share of images with the same top class, ties
            not excused.
        clear_disagreements: int, images whose top class differs beyond a tie.
    """

    images: int
    scale: float
    spread: float
    max_difference: float
    mean_difference: float
    agreement: float
    clear_disagreements: int

    @property
    def telling(self) -> bool:
        """Whether the outputs depend on the image enough to judge the file by."""
        return self.spread > _SPREAD * self.scale


def keras_outputs(model: Any, images: np.ndarray) -> np.ndarray:
    """Runs the Keras model in inference mode.

    Args:
        model: a Keras model with one input and one output.
        images: `(images, height, width, channels)`, float32.

    Returns:
        `(images, ...)`, float32.

    Raises:
        VerificationError: if an output is not finite.
    """
    import keras

    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    outputs = np.concatenate(
        [keras.ops.convert_to_numpy(model(batch, training=False)) for batch in batches]
    ).astype(np.float32)
    if not np.all(np.isfinite(outputs)):
        raise VerificationError("the Keras model itself gives NaN or infinite outputs")
    return outputs


def compare(reference: np.ndarray, outputs: np.ndarray, tolerance: Tolerance) -> Verification:
    """Compares the outputs of a TFLite file with those of the Keras model.

    Args:
        reference: `(images, ..., classes)`, what the Keras model gives, finite.
        outputs: same shape, what the TFLite file gives.
        tolerance: what may differ. The number of images that may disagree is
            rounded down: of 8 images at an agreement of 0.9, none.

    Returns:
        The figures.

    Raises:
        VerificationError: if the outputs differ in shape or by more than
            `tolerance`, or are not finite.
    """
    if reference.shape != outputs.shape:
        raise VerificationError(
            f"the Keras model gives outputs of shape {reference.shape}, "
            f"the TFLite file {outputs.shape}"
        )
    if not np.all(np.isfinite(outputs)):
        raise VerificationError("the TFLite file gives NaN or infinite outputs")
    figures = _figures(reference, outputs, tolerance.tie)
    for name, found, limit in (
        ("largest", figures.max_difference, tolerance.max_difference),
        ("mean", figures.mean_difference, tolerance.mean_difference),
    ):
        if found > limit * figures.scale:
            raise VerificationError(
                f"the {name} difference between the Keras model and the TFLite file is "
                f"{found:.3g}, more than {limit:g} of the outputs' scale {figures.scale:.3g}"
            )
    # Also true of a file that ignores its input, if the mean output is right.
    if figures.telling and figures.mean_difference >= figures.spread:
        raise VerificationError(
            "the TFLite file differs from the Keras model as much as one image differs from "
            f"another: by {figures.mean_difference:.3g} in the mean"
        )
    # The small addend keeps 1 - 0.9 from rounding 10 images down to 0.
    allowed = math.floor((1 - tolerance.agreement) * figures.images + 1e-9)
    if figures.clear_disagreements > allowed:
        raise VerificationError(
            "the Keras model and the TFLite file disagree about the top class of "
            f"{figures.clear_disagreements} of {figures.images} images, {allowed} may"
        )
    return figures


def _figures(reference: np.ndarray, outputs: np.ndarray, tie: float) -> Verification:
    difference = np.abs(reference.astype(np.float64) - outputs)
    images = len(reference)
    scores = reference.reshape(-1, reference.shape[-1])
    chosen = outputs.reshape(scores.shape).argmax(axis=-1)
    gap = scores.max(axis=-1) - np.take_along_axis(scores, chosen[:, None], axis=-1)[:, 0]
    clear = gap > tie * np.ptp(scores, axis=-1)
    return Verification(
        images=images,
        scale=float(np.abs(reference).max()),
        spread=float(np.abs(reference - reference.mean(axis=0)).mean()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        agreement=float(np.mean(scores.argmax(axis=-1) == chosen)),
        clear_disagreements=int(np.any(clear.reshape(images, -1), axis=-1).sum()),
    )
