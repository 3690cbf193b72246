"""Networks ready to build, train and export: ours, some with weights, and those of others."""

from bignas_tf.zoo.building import from_spec, get_model
from bignas_tf.zoo.cifar import BigNASCifarL, BigNASCifarM, BigNASCifarS, BigNASCifarXL
from bignas_tf.zoo.models import (
    BigNASModelL,
    BigNASModelM,
    BigNASModelS,
    BigNASModelXL,
    decode_predictions,
    preprocess_input,
)
from bignas_tf.zoo.presets import get_preset, get_spec, list_models

__all__ = [
    "BigNASCifarL",
    "BigNASCifarM",
    "BigNASCifarS",
    "BigNASCifarXL",
    "BigNASModelL",
    "BigNASModelM",
    "BigNASModelS",
    "BigNASModelXL",
    "decode_predictions",
    "from_spec",
    "get_model",
    "get_preset",
    "get_spec",
    "list_models",
    "preprocess_input",
]
