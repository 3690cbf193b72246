"""Networks ready to build, train and export: ours, some with weights, and those of others.

What builds models is imported when it is first asked for: presets are data, and reading them
takes no Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bignas_tf.zoo.presets import get_preset, get_spec, list_models

if TYPE_CHECKING:
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
    from bignas_tf.zoo.trained import list_supernets, supernet_file

_MODULES = {
    "BigNASCifarL": "cifar",
    "BigNASCifarM": "cifar",
    "BigNASCifarS": "cifar",
    "BigNASCifarXL": "cifar",
    "BigNASModelL": "models",
    "BigNASModelM": "models",
    "BigNASModelS": "models",
    "BigNASModelXL": "models",
    "decode_predictions": "models",
    "from_spec": "building",
    "get_model": "building",
    "list_supernets": "trained",
    "preprocess_input": "models",
    "supernet_file": "trained",
}

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
    "list_supernets",
    "preprocess_input",
    "supernet_file",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
