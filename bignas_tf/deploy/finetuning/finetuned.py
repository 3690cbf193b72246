"""From a child to a network that can be finetuned, and from that to a TFLite file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.data import Split
from bignas_tf.deploy.conversion.converter import through_constants
from bignas_tf.deploy.conversion.saved_model import INPUT, OUTPUT
from bignas_tf.deploy.finetuning.file_weights import read_file_weights
from bignas_tf.deploy.finetuning.folded import Weights, build_folded
from bignas_tf.deploy.formats import TFLITE, check_pair
from bignas_tf.deploy.interpreter import load_interpreter, predict
from bignas_tf.deploy.preprocessing import BYTES, INSIDE, OUTSIDE, in_range, placed, range_of
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.schemes import SCHEMES, Quantization
from bignas_tf.deploy.sidecar import sidecar_path
from bignas_tf.deploy.tflite import Conversion, convert
from bignas_tf.evaluation import BATCH, prepared
from bignas_tf.files import read_json, remove_remains, staged, staging_folder
from bignas_tf.spec import NetworkSpec
from bignas_tf.training.finetune_settings import FinetuneSettings


def finetunable(settings: FinetuneSettings, spec: NetworkSpec, weights: Weights, steps: int) -> Any:
    """Builds the tf_keras network that a technique trains.

    Args:
        settings: with the technique.
        spec: the network.
        weights: of `bignas_tf.deploy.finetuning.folded.folded_weights`.
        steps: of the whole finetuning.

    Returns:
        A `bignas_tf.deploy.finetuning.tfmot.Finetunable`.

    Raises:
        ImportError: without TFMOT; says what to install.
        ValueError: for a network that tf_keras cannot compute.
    """
    with captured_stderr():
        from bignas_tf.deploy.finetuning import compression, quantization_aware

        if settings.technique == "quantize":
            return quantization_aware.quantized(spec, weights)
        if settings.sparsity is not None:
            return compression.pruned(spec, weights, settings.sparsity, steps)
        if settings.clusters is not None:
            return compression.clustered(spec, weights, settings.clusters)
        return compression.plain(spec, weights)


def through_variables(model: Any) -> Any:
    """Opens TensorFlow's converter on a tf_keras model, for batch 1.

    It would trace every layer on its own, which takes longer than everything else, were it
    given the model: it gets the variables and one function.

    Args:
        model: functional model of tf_keras.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = list(model.weights)
    traced = tf.function(
        lambda images: {OUTPUT: model(images, training=False)}, autograph=False
    ).get_concrete_function(tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name=INPUT))
    return tf.lite.TFLiteConverter.from_concrete_functions([traced], module)


@dataclasses.dataclass(frozen=True)
class Images:
    """What a finetuned network is measured with, at its resolution, black -1 and white 1.

    Attributes:
        calibration: that the ranges of post-training quantization are set with.
        verification: that file and network are compared on.
        scored: whose labels are known and that nothing was trained on; None for none.
        labels: of `scored`.
    """

    calibration: np.ndarray
    verification: np.ndarray
    scored: np.ndarray | None
    labels: np.ndarray | None

    @classmethod
    def of(
        cls, calibration: Split, verification: Split, scored: Split | None, resolution: int
    ) -> Images:
        """Brings the images of splits to a resolution."""
        return cls(
            prepared(calibration, resolution),
            prepared(verification, resolution),
            prepared(scored, resolution) if scored else None,
            scored.labels if scored else None,
        )

    def top1(self, run: Any) -> float | None:
        """Share of the scored images whose top class is right, None where there are none.

        Args:
            run: from images to logits.
        """
        if self.scored is None:
            return None
        spans = [self.scored[start : start + BATCH] for start in range(0, len(self.scored), BATCH)]
        logits = np.concatenate([np.asarray(run(images)) for images in spans])
        return float((logits.argmax(-1) == self.labels).mean())


def write_finetuned(
    network: Any,
    spec: NetworkSpec,
    output: Path,
    images: Images,
    *,
    quantization: str,
    io: str | None,
    metadata: Mapping[str, Any],
    preprocessing: str | None = None,
    overwrite: bool = False,
) -> tuple[Conversion, dict[str, Any]]:
    """Converts a finetuned network, checks the file against it and measures both.

    File and JSON appear when all of that is done: whoever is interrupted begins it anew.

    Args:
        network: of `finetunable`.
        spec: the network.
        output: `.tflite` file to write.
        images: to measure with.
        quantization: a value of `Quantization`.
        io: type of input and output, None for the quantization's own.
        metadata: for the sidecar.
        preprocessing: `"inside"`: the file takes pixels of 0 to 255; else -1 to 1.
        overwrite: whether the output may be replaced.

    Returns:
        The conversion, and what was measured: `top1` of the network and of the file, and
        what the file's kernels hold. The sidecar has that under `finetuning`.

    Raises:
        OSError: if the output or its JSON exists (FileExistsError) or cannot be written.
        VerificationError: if the file does not compute what the network computes.
    """
    check_pair(output, TFLITE, overwrite)
    trained = SCHEMES[Quantization.parse(quantization)].trained
    model, described = _placed(network, spec, trained, preprocessing)
    ends = range_of(described)
    sidecar = sidecar_path(output)
    for path in (output, sidecar):
        remove_remains(path)
    with staging_folder(output.with_name(f"{output.name}.finetuned")) as folder:
        conversion = convert(
            model,
            folder / output.name,
            quantization=quantization,
            calibration_images=in_range(images.calibration, ends),
            verification_images=in_range(images.verification, ends),
            metadata={**metadata, **described, "spec": spec.to_json()},
            io=io,
            make_converter=through_variables if trained else through_constants,
        )
        with captured_stderr():  # XNNPACK announces itself
            interpreter = load_interpreter(conversion.path)
        measured = {
            "top1_network": images.top1(lambda x: model(in_range(x, ends), training=False)),
            "top1_file": images.top1(lambda x: predict(interpreter, in_range(x, ends))),
            "images": 0 if images.scored is None else len(images.scored),
            "kernels": dataclasses.asdict(read_file_weights(conversion.path)),
        }
        content = read_json(conversion.sidecar)
        content["finetuning"] = {**content.get("finetuning", {}), **measured}
        with staged(sidecar, output) as (new_sidecar, new):  # in this order as in `convert`
            os.replace(conversion.path, new)
            new_sidecar.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return dataclasses.replace(conversion, path=output, sidecar=sidecar), measured


def _placed(
    network: Any, spec: NetworkSpec, trained: bool, preprocessing: str | None
) -> tuple[Any, dict[str, Any]]:
    """The model that is converted, its preprocessing where it is wanted, and what tells so."""
    if not trained:
        return placed(build_folded(spec, network.weights()), {}, preprocessing)
    if preprocessing != INSIDE:
        return network.model, {"input_range": [-1.0, 1.0], "preprocessing": OUTSIDE}
    from bignas_tf.deploy.finetuning.quantization_aware import of_pixels

    return of_pixels(network.model), {"input_range": list(BYTES), "preprocessing": INSIDE}
