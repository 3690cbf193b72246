"""Does a converted file compute what the Keras model computes?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

_BATCH = 16  # images per call of the Keras model: bounds the memory
# Below this spread, relative to the scale, an untrained network gives all images nearly the same
# outputs, and rounding may well exceed what little differs.
_SPREAD = 0.01
_LEAST_SPREAD = 0.5  # of the Keras model's, that a file's outputs must have


class VerificationError(RuntimeError):
    """A converted file is not what its Keras model is: other outputs, batch norm not folded."""


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

    def summary(self) -> str:
        """A few words for people."""
        agreeing = round(self.agreement * self.images)
        doubt = "" if self.telling else " (the outputs hardly depend on the image)"
        return (
            f"top class as in Keras on {agreeing} of {self.images} images{doubt}, "
            f"largest difference {self.max_difference:.2g} (mean "
            f"{self.mean_difference:.2g}, scale {self.scale:.2g})"
        )


def require_keras_3(model: Any) -> None:
    """Requires a model of Keras 3, not one of tf_keras.

    Raises:
        ValueError: if it is anything else.
    """
    import keras

    if not isinstance(model, keras.Model):
        kind = type(model)
        raise ValueError(
            f"`model` must be a model of Keras 3. Received: {kind.__module__}.{kind.__qualname__}"
        )


def input_shape(model: Any) -> tuple[int, int, int]:
    """The image that a model takes.

    Args:
        model: functional model of Keras or tf_keras.

    Returns:
        Height, width and channels.

    Raises:
        ValueError: unless it has one input, float32 images of one size, and one output,
            computes in float32, and Keras runs on TensorFlow.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "export needs Keras on TensorFlow (KERAS_BACKEND=tensorflow). "
            f"Received: {keras.backend.backend()!r}"
        )
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs or len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "`model` must be a functional Keras model with one input and one output. "
            f"Received: {model!r}"
        )
    shape, dtype = tuple(inputs[0].shape[1:]), keras.backend.standardize_dtype(inputs[0].dtype)
    if len(shape) != 3 or None in shape or dtype != "float32":
        raise ValueError(
            "`model` must take float32 images of static (height, width, channels). "
            f"Received: {shape}, {dtype}"
        )
    # There are no kernels for half-precision graphs; float16 files come from float32 models.
    types = {getattr(layer, "compute_dtype", "float32") for layer in model.layers}
    halves = sorted(types & {"float16", "bfloat16"})
    if halves:
        raise ValueError(
            "`model` must compute in float32: build it under that dtype policy and give it the "
            f"weights. Received: layers that compute in {' and '.join(halves)}"
        )
    return shape


def checked_images(name: str, images: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Requires finite float images of one size.

    Args:
        name: of the argument.
        images: `(images, height, width, channels)`.
        shape: height, width and channels.

    Returns:
        The images in float32.

    Raises:
        ValueError: unless they are that, and at least one.
    """
    if images is None:
        raise ValueError(f"`{name}` are needed here. Received: None")
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise ValueError(
            f"`{name}` must be one or more images of shape {shape}. Received: {images.shape}"
        )
    # Integers are nearly always images that somebody forgot to bring to the model's range.
    if not np.issubdtype(images.dtype, np.floating) or not np.all(np.isfinite(images)):
        raise ValueError(f"`{name}` must be finite floats. Received: {images.dtype}")
    return images.astype(np.float32)


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


def compare(
    reference: np.ndarray,
    outputs: np.ndarray,
    tolerance: Tolerance,
    what: str = "the TFLite file",
) -> Verification:
    """Compares the outputs of a converted file with those of the Keras model.

    Args:
        reference: `(images, ..., classes)`, what the Keras model gives, finite.
        outputs: same shape, what the file gives.
        tolerance: what may differ. The number of images that may disagree is
            rounded down: of 8 images at an agreement of 0.9, none.
        what: the file, in messages.

    Returns:
        The figures.

    Raises:
        VerificationError: if the outputs differ in shape or by more than
            `tolerance`, or are not finite.
    """
    if reference.shape != outputs.shape:
        raise VerificationError(
            f"the Keras model gives outputs of shape {reference.shape}, {what} {outputs.shape}"
        )
    if not np.all(np.isfinite(outputs)):
        raise VerificationError(f"{what} gives NaN or infinite outputs")
    figures = _figures(reference, outputs, tolerance.tie)
    for name, found, limit in (
        ("largest", figures.max_difference, tolerance.max_difference),
        ("mean", figures.mean_difference, tolerance.mean_difference),
    ):
        if found > limit * figures.scale:
            raise VerificationError(
                f"the {name} difference between the Keras model and {what} is "
                f"{found:.3g}, more than {limit:g} of the outputs' scale {figures.scale:.3g}"
            )
    own = float(np.abs(outputs - outputs.mean(axis=0)).mean())
    if figures.telling and own < _LEAST_SPREAD * figures.spread:
        raise VerificationError(
            f"the outputs of {what} hardly depend on the image: their spread is {own:.3g}, that of "
            f"the Keras model {figures.spread:.3g}"
        )
    if figures.telling and figures.mean_difference >= figures.spread:
        raise VerificationError(
            f"{what} differs from the Keras model as much as one image differs from "
            f"another: by {figures.mean_difference:.3g} in the mean"
        )
    # The small addend keeps 1 - 0.9 from rounding 10 images down to 0.
    allowed = math.floor((1 - tolerance.agreement) * figures.images + 1e-9)
    if figures.clear_disagreements > allowed:
        raise VerificationError(
            f"the Keras model and {what} disagree about the top class of "
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
