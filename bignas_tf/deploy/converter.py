"""TensorFlow's converter, asked the one way that works for Keras 3 models."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.schemes import Scheme


class ConversionError(RuntimeError):
    """TensorFlow's converter refused the model."""


def flatbuffer(model: Any, scheme: Scheme, calibration: np.ndarray | None = None) -> bytes:
    """Runs TensorFlow's converter; its log is shown only if it fails.

    Args:
        model: functional Keras model with one float32 input of static shape
            `(None, height, width, channels)` and one output.
        scheme: what to ask for.
        calibration: `(images, height, width, channels)`, float32, where the scheme
            is calibrated.

    Returns:
        The content of a `.tflite` file of batch 1.

    Raises:
        ConversionError: if the converter fails.
    """
    import keras
    import tensorflow as tf

    with captured_stderr(), tempfile.TemporaryDirectory() as folder:
        try:
            # Through a SavedModel: from concrete functions of a Keras 3 model the converter
            # makes files that give NaN.
            archive = keras.export.ExportArchive()
            archive.track(model)
            archive.add_endpoint(
                name="serve",
                fn=lambda images: model(images, training=False),
                input_signature=[
                    tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name="images")
                ],
            )
            archive.write_out(folder, verbose=False)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, scheme.operations)]
            if scheme.optimize:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if scheme.weights:
                converter.target_spec.supported_types = [getattr(tf, scheme.weights)]
            if calibration is not None:
                converter.representative_dataset = lambda: ([image[None]] for image in calibration)
            converter.inference_input_type = getattr(tf, scheme.interface)
            converter.inference_output_type = getattr(tf, scheme.interface)
            return converter.convert()
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise ConversionError(f"TensorFlow cannot convert `model`: {reason}") from error
