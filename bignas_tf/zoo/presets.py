"""The zoo's networks as data: one JSON file per family."""

from __future__ import annotations

import difflib
import functools
import json
import re
from pathlib import Path
from typing import Any

from bignas_tf.checks import require, require_choice
from bignas_tf.spec import NetworkSpec

FAMILIES = ("bignascifar", "bignasmodel", "attentivenas", "fairnas")


@functools.cache
def _presets() -> dict[str, dict[str, Any]]:
    """All presets by name; read when first asked for, not when the package is imported."""
    found = {}
    for family in FAMILIES:
        path = Path(__file__).with_name(f"{family}.json")
        for name, preset in json.loads(path.read_text(encoding="utf-8")).items():
            found[name] = {"family": family, **preset}
    return dict(sorted(found.items(), key=lambda item: item[1]["macs"]))


def list_models(family: str | None = None, weights: str | bool | None = None) -> tuple[str, ...]:
    """Names of the presets, the network with the fewest MACs first.

    Args:
        family: only those of one, "bignascifar", "bignasmodel" (networks of ours),
            "attentivenas" or "fairnas" (networks of others).
        weights: True: only those that have weights; False: only those that have none; a name
            such as "cifar10": only those with these weights.

    Raises:
        ValueError: for an unknown family, or weights that no preset has.
    """
    if family is not None:
        require_choice("family", family, FAMILIES)
    known = sorted({name for preset in _presets().values() for name in preset["weights"] or ()})
    ok = weights is None or isinstance(weights, bool) or weights in known
    require(ok, "weights", f"None, True, False or one of {', '.join(known)}", weights)

    return tuple(
        name
        for name, preset in _presets().items()
        if family in (None, preset["family"]) and _has(preset["weights"] or {}, weights)
    )


def _has(found: dict[str, Any], weights: str | bool | None) -> bool:
    return weights in found if isinstance(weights, str) else weights in (None, bool(found))


def require_preset(name: Any) -> None:
    """Requires the name of a preset.

    Raises:
        ValueError: for another; the message has the names, and the one that may be meant.
    """
    names = list_models()
    known = {re.sub(r"\W|_", "", preset): preset for preset in names}
    written = re.sub(r"\W|_", "", str(name).lower())
    close = difflib.get_close_matches(written, known, n=1, cutoff=0.8)
    meant = f" (did you mean {known[close[0]]!r}?)" if close else ""
    require(name in names, "name", f"one of {', '.join(names)}{meant}", name)


def get_preset(name: str) -> dict[str, Any]:
    """Everything that is known of a preset.

    Args:
        name: one of `list_models()`.

    Returns:
        A JSON object: its `family`; the network's `spec`, and the `space` and `genotype` that
        it comes from, null where it is in no space; images: `resolution` in pixels, the
        `image_size` that they had before, null if unknown, `crop`, the side of the centre
        square that is used as a fraction of the shorter side, `interpolation` (both are this
        package's defaults; nobody has evaluated the networks of others with them),
        `input_range` of the model with its preprocessing; `labels` of the classes, null if
        there are no weights; `macs` and `params`, counted; `ours`, whether the configuration is
        ours; `published`, figures of a publication with their `source`, or null; `origin`;
        `weights`, by the data that they were trained on, with the name and SHA-256 of a file,
        and their `accuracy` with its `source`, both null where we have trained none.

    Raises:
        ValueError: for an unknown name.
    """
    require_preset(name)
    return json.loads(json.dumps(_presets()[name]))  # a copy: presets are shared


@functools.cache
def _spec(name: str) -> NetworkSpec:
    return NetworkSpec.from_json(_presets()[name]["spec"])


def get_spec(name: str) -> NetworkSpec:
    """The network of a preset.

    Args:
        name: one of `list_models()`.

    Returns:
        The network for as many classes as it was made for (1000, `bignascifar` 10) and square
        RGB images of its own resolution.

    Raises:
        ValueError: for an unknown name.
    """
    require_preset(name)
    return _spec(name)
