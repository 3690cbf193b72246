"""TFLite files of single blocks and of whole networks, with random weights, to be timed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.blocks import ConvBlock
from bignas_tf.checks import require
from bignas_tf.deploy.schemes import POST_TRAINING, SCHEMES, Quantization
from bignas_tf.files import read_json, replacing, write_json
from bignas_tf.latency_table import SingleBlock
from bignas_tf.latency_table.blocks import NAME
from bignas_tf.spec import NetworkSpec

INDEX, FORMAT = "index.json", "bignas latency files 1"
OVERHEAD, BLOCK, NETWORK = "overhead", "block", "network"
CALIBRATED = 4  # images; enough where only the time counts

# What calling a file costs is the time of one multiplication.
NOTHING = NetworkSpec(
    (1, 1, 1), (ConvBlock(name=NAME, channels=1, kernel_size=1, activation="linear"),), classes=1
)


@dataclasses.dataclass(frozen=True)
class Timed:
    """A network that is to be timed.

    Attributes:
        kind: `OVERHEAD`, `BLOCK` or `NETWORK`.
        key: of the block; of others a name.
        label: for people.
        spec: the network.
    """

    kind: str
    key: str
    label: str
    spec: NetworkSpec

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.kind}_{self.key}.tflite"


def timed_networks(
    blocks: Sequence[SingleBlock], networks: Mapping[str, NetworkSpec]
) -> list[Timed]:
    """Everything that a table needs: the overhead, the blocks, whole networks by name."""
    return [
        Timed(OVERHEAD, "call", "calling a file", NOTHING),
        *(Timed(BLOCK, block.key, block.label, block.spec) for block in blocks),
        *(Timed(NETWORK, name, f"network {name}", spec) for name, spec in networks.items()),
    ]


def check_quantization(quantization: str) -> None:
    """Requires one that a network with random weights can have.

    Raises:
        ValueError: naming those there are.
    """
    allowed = [kind.value for kind in POST_TRAINING]
    require(quantization in allowed, "quantization", f"one of {', '.join(allowed)}", quantization)


def content(spec: NetworkSpec, quantization: str, seed: int) -> bytes:
    """A TFLite file of a network with random weights.

    Args:
        spec: the network.
        quantization: the value of a `Quantization`.
        seed: of the weights, and of the images that int8 is calibrated on.

    Raises:
        ConversionError: if TensorFlow's converter fails.
    """
    import keras

    from bignas_tf.child import build_child
    from bignas_tf.deploy.conversion.converter import flatbuffer

    model = build_child(spec, seed=seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Residual branches begin at zero, which a converter makes less of.
            layer.gamma.assign(np.ones(layer.gamma.shape))
    scheme = SCHEMES[Quantization(quantization)]
    rng = np.random.Generator(np.random.Philox(seed))
    images = rng.standard_normal((CALIBRATED, *spec.input_shape), np.float32)
    file = flatbuffer(model, scheme, images if scheme.calibrated else None)
    keras.backend.clear_session()
    return file


def write_files(
    folder: str | os.PathLike[str],
    networks: Sequence[Timed],
    header: Mapping[str, Any],
    progress: Callable[[Sequence[Timed]], Any] = iter,
) -> None:
    """Writes the files of a table and an index of them; those that are there already stay.

    Args:
        folder: created if missing.
        networks: what is to be timed.
        header: of the table, with its `quantization` and `seed`.
        progress: goes through `networks`, such as a bar.

    Raises:
        ValueError: if the folder is of another table.
        OSError: if it cannot be written to.
        ConversionError: if TensorFlow's converter fails.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, dict[str, Any]] = {}
    if (folder / INDEX).exists():
        found = read_index(folder)
        allowed = f"a new one for this table; {folder} has the files of {found['header']}"
        require(found["header"] == header, "folder", allowed, header)
        known = {row["file"]: row for row in found["files"]}
    for network in progress(networks):
        if network.file in known and (folder / network.file).exists():
            continue
        data = content(network.spec, header["quantization"], header["seed"])
        with replacing(folder / network.file) as temporary:
            temporary.write_bytes(data)
        fields = {field.name: getattr(network, field.name) for field in dataclasses.fields(network)}
        row = {**fields, "spec": network.spec.to_json(), "file": network.file}
        known[network.file] = {**row, "sha256": hashlib.sha256(data).hexdigest()}
        write_json(
            folder / INDEX, {"format": FORMAT, "header": header, "files": list(known.values())}
        )


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder that `write_files` wrote: `header` and `files`.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is none.
    """
    index = read_json(folder / INDEX)
    known = index.get("format") if isinstance(index, dict) else None
    require(known == FORMAT, "folder", f"one with an index of '{FORMAT}'", f"{folder}: {known}")
    return index
