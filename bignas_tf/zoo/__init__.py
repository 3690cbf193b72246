"""Networks of published sizes, ready to build, train and export."""

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
    "BigNASModelL",
    "BigNASModelM",
    "BigNASModelS",
    "BigNASModelXL",
    "decode_predictions",
    "get_preset",
    "get_spec",
    "list_models",
    "preprocess_input",
]
