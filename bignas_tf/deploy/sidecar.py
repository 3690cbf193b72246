"""The JSON beside a model's file, which says what it is and how it was checked."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bignas_tf.files import check_output

# What an export says of itself. The same words of another file do not hold for it.
FIGURES = frozenset({
    "format", "quantization", "bytes", "sha256", "input", "output", "verification", "operators",
    "delegate", "folding", "versions", "opset", "signature", "input_name", "output_name",
})  # fmt: skip
_PACKAGES = ("bignas-tf", "tensorflow", "keras", "ai-edge-litert", "tf2onnx", "onnxruntime")


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """The JSON of a converted model.

    `model.tflite` has `model.json` and other files have their whole name before it, as
    `model.onnx.json`; a SavedModel, a folder whose name has no suffix, has it inside, in
    TensorFlow's place for files that do not belong to the graph. So the exports of one child
    do not describe each other.
    """
    path = Path(path)
    if not path.suffix:
        return path / "assets.extra" / "model.json"
    return path.with_suffix(".json") if path.suffix == ".tflite" else _full_name(path)


def _full_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """Reads the JSON of a model, empty if there is none.

    For `child.keras` that is `child.keras.json`, else what `child.json` says of the child: a
    `child.tflite` beside it may have added its own figures.

    Raises:
        ValueError: if it is no JSON object, or tells the hash of another file than `path`.
    """
    sibling = sidecar_path(path)
    shared = path.suffix == ".keras" and not sibling.exists()
    if shared:
        sibling = path.with_suffix(".json")
    if not sibling.exists():
        return {}
    try:
        metadata = json.loads(sibling.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"the JSON beside `model` is broken ({error}). Received: {sibling}"
        ) from error
    if not isinstance(metadata, dict):
        raise ValueError(f"the JSON beside `model` must be an object. Received: {sibling}")
    if shared:
        return _without_figures(metadata)
    if path.is_file() and "sha256" in metadata:
        if metadata["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
            raise ValueError(
                f"the JSON beside `model` must have its hash under `sha256`: {sibling.name} "
                "describes another file, as after an export that was killed; convert it again. "
                f"Received: {path}"
            )
    return metadata


def _without_figures(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in FIGURES}


def described(
    model: Any, metadata: Mapping[str, Any] | None, labels: Sequence[str] | None
) -> dict[str, Any]:
    """The caller's part of a sidecar, as it will be read back, without `FIGURES`.

    Raises:
        ValueError: if `labels` are not one per class, or something is no JSON.
    """
    content = _without_figures(metadata or {})
    if labels is not None:
        classes = model.outputs[0].shape[-1]
        if isinstance(labels, str) or len(labels) != classes:
            raise ValueError(f"`labels` must be {classes} names. Received: {labels!r}")
        content["labels"] = list(labels)
    try:
        return json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`metadata` and `labels` must be JSON-serializable. Received: {error}"
        ) from error


def check_sidecar(sidecar: Path, content: Mapping[str, Any], overwrite: bool) -> None:
    """Refuses a sidecar whose place is taken by a JSON that says more of a model than `content`.

    `bignas extract` describes child.keras in child.json, child.tflite's place too: whoever
    passes all of that as metadata loses nothing.

    Raises:
        FileExistsError: if it is taken and `overwrite` is false.
    """
    try:
        present = json.loads(sidecar.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        present = None
    said = _without_figures(present) if isinstance(present, dict) else None
    if said is None or not said.items() <= content.items():
        check_output(sidecar, overwrite)


def versions() -> dict[str, str]:
    """The installed packages that a conversion depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra, or this package run from a checkout that is not installed
    return found
