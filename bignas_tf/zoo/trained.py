"""Weights that come with the package: which there are, and their files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from bignas_tf.checks import require_choice
from bignas_tf.zoo.download import sha256_of
from bignas_tf.zoo.presets import get_preset

FILES = Path(__file__).with_name("files")


def weights_of(preset: str) -> tuple[str, ...]:
    """Names of the data that weights of a preset were trained on, such as "cifar10"."""
    return tuple(get_preset(preset)["weights"] or ())


def weights_file(preset: str, name: str) -> Path:
    """The `.weights.h5` file of a preset.

    Raises:
        ValueError: for weights that there are none of, or a file that is not the published one.
    """
    require_choice("weights", name, weights_of(preset))
    return _verified(get_preset(preset)["weights"][name])


def list_supernets() -> tuple[str, ...]:
    """Names of the trained supernets."""
    return tuple(_supernets())


def supernet_file(name: str) -> Path:
    """The checkpoint of a trained supernet, as `bignas_tf.training.state.load_trained` reads it.

    Raises:
        ValueError: for an unknown name, or a file that is not the published one.
    """
    require_choice("supernet", name, list_supernets())
    return _verified(_supernets()[name]["weights"])


def front_file(name: str) -> Path:
    """The checkpoint of a supernet's evaluated front.

    Its metadata has `points`, each a genotype with its held-out accuracy and cost; its arrays
    are their batch-norm statistics, `POSITION/op/moving_*`.

    Raises:
        ValueError: as `supernet_file`.
    """
    require_choice("supernet", name, list_supernets())
    return _verified(_supernets()[name]["front"])


@functools.cache
def _supernets() -> dict[str, dict[str, Any]]:
    path = FILES / "supernets.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _verified(entry: dict[str, str]) -> Path:
    path = FILES / entry["file"]
    found = sha256_of(path)
    if found != entry["sha256"]:
        raise ValueError(
            f"{path} must have the SHA-256 {entry['sha256']}; install the package again. "
            f"Received: {found}"
        )
    return path
