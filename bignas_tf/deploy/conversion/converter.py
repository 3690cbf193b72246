"""TensorFlow's converter, asked in the one way that works for Keras 3 models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bignas_tf.deploy.conversion.saved_model import INPUT, OUTPUT
from bignas_tf.deploy.quiet import captured_stderr
from bignas_tf.deploy.schemes import Scheme

# From a model to a `tf.lite.TFLiteConverter` that has not been configured yet.
MakeConverter = Callable[[Any], Any]


class ConversionError(RuntimeError):
    """A converter refused the model."""


def through_constants(model: Any) -> Any:
    """Opens the converter on a Keras 3 model whose weights became constants first.

    From concrete functions of the model itself the converter makes files that give NaN: it
    looks for the variables that they read and does not find them in a Keras 3 model. Here
    there are none to look for: all weights, the statistics of batch norm too, are copied into
    the function's graph. By way of a SavedModel, which keeps variables, a file of the same
    operators and the same outputs, bit for bit (tests/deploy/test_converter.py makes both),
    takes two to five times as long.

    Args:
        model: functional Keras model.

    Returns:
        A `tf.lite.TFLiteConverter` for batch 1, with one signature: from `images` to `scores`.
    """
    import tensorflow as tf

    trained = [variable.numpy() for variable in model.trainable_variables]
    others = [variable.numpy() for variable in model.non_trainable_variables]

    def scores(images: Any) -> dict[str, Any]:
        constants = [[tf.constant(array) for array in arrays] for arrays in (trained, others)]
        return {OUTPUT: model.stateless_call(*constants, images, training=False)[0]}

    shape = (1, *model.inputs[0].shape[1:])
    traced = tf.function(scores, autograph=False).get_concrete_function(
        tf.TensorSpec(shape, tf.float32, name=INPUT)
    )
    # Of nothing that has to be tracked; without this argument the converter warns.
    return tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())


def flatbuffer(
    model: Any,
    scheme: Scheme,
    calibration: np.ndarray | None = None,
    io: str | None = None,
    make_converter: MakeConverter = through_constants,
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
    with captured_stderr():
        try:
            converter = make_converter(model)
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
            raise ConversionError(f"TensorFlow cannot convert `model`: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first line, and those that list operators, such as `TF Select ops: Qr`."""
    first, *others = str(error).strip().splitlines() or [repr(error)]
    return "; ".join([first, *(line.strip() for line in others if " ops: " in line)])
