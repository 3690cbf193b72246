"""TensorFlow's converter, asked the one way that works for Keras 3 models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.saved_model import write_saved_model
from bignas_tf.deploy.schemes import Scheme

# From a model and an empty folder, which lives until the conversion is done, to a
# `tf.lite.TFLiteConverter` that has not been configured yet.
MakeConverter = Callable[[Any, str], Any]


class ConversionError(RuntimeError):
    """A converter refused the model."""


def through_saved_model(model: Any, folder: str) -> Any:
    """Opens the converter on a Keras 3 model.

    From concrete functions and such a model, whose variables they read, the converter makes
    files that give NaN.

    Args:
        model: functional Keras model.
        folder: an empty folder.

    Returns:
        A `tf.lite.TFLiteConverter` for batch 1.
    """
    import tensorflow as tf

    write_saved_model(model, folder, batch=1)
    return tf.lite.TFLiteConverter.from_saved_model(folder)


def through_constants(model: Any, folder: str) -> Any:
    """Opens the converter on a Keras 3 model whose weights became constants first.

    Several times as fast as `through_saved_model`, and the file computes the same, bit for
    bit, with the same operators; its tensors have other names. For files of which many are
    needed: those of latency tables, which are timed and not shipped.

    What comes out as NaN elsewhere are variables that the converter looks for in a Keras 3
    model. Here there are none to look for: all weights, the statistics of batch norm too, are
    copied into the function's graph. tests/deploy/test_block_files.py compares such files with
    Keras, for each kind of block.

    Args:
        model: functional Keras model.
        folder: an empty folder, not used.

    Returns:
        A `tf.lite.TFLiteConverter` for batch 1.
    """
    del folder
    import tensorflow as tf

    trained = [variable.numpy() for variable in model.trainable_variables]
    others = [variable.numpy() for variable in model.non_trainable_variables]

    def scores(images: Any) -> Any:
        constants = [[tf.constant(array) for array in arrays] for arrays in (trained, others)]
        return model.stateless_call(*constants, images, training=False)[0]

    shape = (1, *model.inputs[0].shape[1:])
    traced = tf.function(scores, autograph=False).get_concrete_function(
        tf.TensorSpec(shape, tf.float32)
    )
    # Of nothing that has to be tracked; without this argument the converter warns.
    return tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())


def flatbuffer(
    model: Any,
    scheme: Scheme,
    calibration: np.ndarray | None = None,
    io: str | None = None,
    make_converter: MakeConverter = through_saved_model,
) -> bytes:
    """Runs TensorFlow's converter; its log is shown only if it fails.

    Args:
        model: functional Keras model with one float32 input of static shape
            `(None, height, width, channels)` and one output.
        scheme: what to ask for.
        calibration: `(images, height, width, channels)`, float32, where the scheme
            is calibrated.
        io: type of input and output, one of `scheme.interfaces`; by default the first.
        make_converter: opens the converter on the model. A model of another kind, such as
            one of tf_keras with quantization nodes, brings its own.

    Returns:
        The content of a `.tflite` file of batch 1.

    Raises:
        ConversionError: if the converter fails.
    """
    import tensorflow as tf

    interface = getattr(tf, scheme.interface(io))
    with captured_stderr(), tempfile.TemporaryDirectory() as folder:
        try:
            converter = make_converter(model, folder)
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, scheme.operations)]
            if scheme.optimize:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if scheme.weights:
                converter.target_spec.supported_types = [getattr(tf, scheme.weights)]
            if calibration is not None:
                converter.representative_dataset = lambda: ([image[None]] for image in calibration)
            converter.inference_input_type = converter.inference_output_type = interface
            return converter.convert()
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise ConversionError(f"TensorFlow cannot convert `model`: {reason}") from error
