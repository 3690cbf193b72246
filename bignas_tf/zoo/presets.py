"""The zoo's networks as data: `presets.json`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from bignas_tf.checks import require_choice
from bignas_tf.spec import NetworkSpec


@functools.cache
def _presets() -> dict[str, dict[str, Any]]:
    """All presets by name; read when first asked for, not when the package is imported."""
    return json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))


def list_models() -> tuple[str, ...]:
    """Names of the presets, the smallest network first."""
    return tuple(_presets())


def get_preset(name: str) -> dict[str, Any]:
    """Everything that is known of a preset.

    Args:
        name: one of `list_models()`.

    Returns:
        A JSON object: `spec`, the `space` and `genotype` that it comes from, `resolution` in
        pixels and `interpolation` of its images, `input_range` of the model with its
        preprocessing, `macs`, `params`, the `published` figures that it matches, `origin`,
        and `weights` and `accuracy`, both null where nobody has trained it; with weights also
        their `labels` and the `image_size` of the images that were resized for them.

    Raises:
        ValueError: for an unknown name.
    """
    require_choice("name", name, list_models())
    return json.loads(json.dumps(_presets()[name]))  # a copy: presets are shared


@functools.cache
def _spec(name: str) -> NetworkSpec:
    return NetworkSpec.from_json(_presets()[name]["spec"])


def get_spec(name: str) -> NetworkSpec:
    """The network of a preset.

    Args:
        name: one of `list_models()`.

    Returns:
        The network for 1000 classes and square RGB images of its own resolution.

    Raises:
        ValueError: for an unknown name.
    """
    require_choice("name", name, list_models())
    return _spec(name)
