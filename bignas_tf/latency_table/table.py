"""The table: milliseconds of blocks, and what they say about a network."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.checks import is_number, require
from bignas_tf.files import read_json, write_json
from bignas_tf.latency_table.blocks import SingleBlock, blocks_of
from bignas_tf.latency_table.model import LEAST, BlockModel, fit
from bignas_tf.spec import NetworkSpec

FORMAT = "bignas latency table 1"
LEAST_FOR_OFFSET = 4  # networks; fewer only scale the sum
SHORTEST = 1e-5  # ms; a block that seems to take less than calling a file costs this


@dataclasses.dataclass(frozen=True)
class BlockTime:
    """A measured block.

    Attributes:
        label: for people.
        spec: the block as a network of its own.
        ms: of the file that has this block alone, calling it included.
        spread: half the width of a 95 % interval of `ms`, relative; None if unknown.
    """

    label: str
    spec: NetworkSpec
    ms: float
    spread: float | None = None


@dataclasses.dataclass(frozen=True)
class NetworkTime:
    """A measured whole network, to compare the sum of its blocks with.

    Attributes:
        spec: the network.
        ms: of its file.
        spread: as of a block.
    """

    spec: NetworkSpec
    ms: float
    spread: float | None = None


class LatencyTable:
    """Milliseconds of blocks on one device, and so of every network that consists of them.

    A network takes `offset_ms` plus `scale` times the sum of its blocks, each without
    `overhead_ms`, which calling a file costs. Both come from the whole networks that were
    measured beside the blocks and consist of blocks that the table can tell; without any the
    offset is the overhead and the scale 1. A block that the table does not have is predicted
    from the others by regression, which needs scikit-learn.

    Args:
        header: `space`, `resolutions`, `quantization`, `threads`, `device`, `clock`,
            `statistic`, `conditions`, `seed` and whatever else says how it was measured; plain
            JSON.
        overhead_ms: of a file that does next to nothing; 0 or more.
        blocks: by key.
        networks: measured on the same device.

    Attributes:
        unit: of `profile`.
    """

    unit = "ms"

    def __init__(
        self,
        header: Mapping[str, Any],
        overhead_ms: float,
        blocks: Mapping[str, BlockTime],
        networks: Sequence[NetworkTime] = (),
    ) -> None:
        self.header = dict(header)
        self.overhead_ms = overhead_ms
        self.blocks = dict(blocks)
        self.networks = tuple(networks)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Reads a file of `write`.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is no such table.
        """
        content = read_json(Path(path))
        known = content.get("format") if isinstance(content, dict) else None
        require(known == FORMAT, "latency_table", f"a file of '{FORMAT}'", f"{path}: {known}")
        try:
            blocks = {row["key"]: _time(BlockTime, row) for row in content["blocks"]}
            networks = [_time(NetworkTime, row) for row in content["networks"]]
            return cls(content["header"], _number(content["overhead_ms"]), blocks, networks)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"`latency_table` must be a complete table ({error!r}). Received: {path}"
            ) from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON; the file is replaced whole."""
        write_json(
            path,
            {
                "format": FORMAT,
                "header": self.header,
                "overhead_ms": self.overhead_ms,
                "networks": [_row(network) for network in self.networks],
                "blocks": [{"key": key, **_row(block)} for key, block in self.blocks.items()],
            },
        )

    def profile(self, spec: NetworkSpec) -> float:
        """Milliseconds of a network, predicted.

        Raises:
            ValueError: as `times` does.
            ModuleNotFoundError: as `times` does.
        """
        return self.offset_ms + sum(self.times(spec).values())

    def times(self, spec: NetworkSpec) -> dict[str, float]:
        """Milliseconds of a network's blocks by their names, without the offset.

        Raises:
            ValueError: for a block that the table neither has nor can predict, or that is no
                network of its own.
            ModuleNotFoundError: without scikit-learn, for one that is to be predicted.
        """
        return {name: self.scale * self._block_ms(b) for name, b in blocks_of(spec).items()}

    def missing(self, blocks: Iterable[SingleBlock]) -> list[SingleBlock]:
        """Those of some blocks that were not measured."""
        return [block for block in blocks if block.key not in self.blocks]

    @property
    def digest(self) -> str:
        """Hexadecimal digest of all that a prediction depends on."""
        blocks = {key: block.ms for key, block in self.blocks.items()}
        content = json.dumps([self.offset_ms, self.scale, self.overhead_ms, blocks], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def scale(self) -> float:
        """What the sum of the blocks is multiplied with."""
        return self._fitted[1]

    @property
    def offset_ms(self) -> float:
        """What is added to the sum."""
        return self._fitted[0]

    @property
    def leave_one_out_error(self) -> float | None:
        """Mean relative error of the measured networks, each predicted by the others.

        None where there are too few to leave one out.
        """
        networks = self._summed
        if len(networks) < LEAST_FOR_OFFSET + 1:
            return None
        errors = []
        for left, network in enumerate(networks):
            others = [n for i, n in enumerate(networks) if i != left]
            offset, scale = self._fit(others)
            errors.append(abs((offset + scale * self._sum(network.spec)) / network.ms - 1))
        return float(np.mean(errors))

    @functools.cached_property
    def model(self) -> BlockModel | None:
        """The regression for blocks that are missing; None if the table is too small."""
        specs = [block.spec for block in self.blocks.values()]
        times = [self._net(block.ms) for block in self.blocks.values()]
        return fit(specs, times, self.overhead_ms, int(self.header.get("seed", 0)))

    def summary(self) -> str:
        """What the table is and how good it seems, a few lines for people."""
        lines = [f"{len(self.blocks)} blocks, {len(self.networks)} whole networks"]
        if self._summed:
            lines.append(
                f"a network takes {self.offset_ms:.4f} ms + {self.scale:.3f} times its blocks' sum"
            )
        if self.leave_one_out_error is not None:
            lines.append(
                "mean error on measured networks, each left out once: "
                f"{self.leave_one_out_error:.1%}"
            )
        if self.model:
            lines.append(
                f"blocks that are missing are predicted ({self.model.kind} regression): median "
                f"error on held-out blocks {self.model.error:.1%}, nine in ten below "
                f"{self.model.worst:.1%}, mean {self.model.mean:.1%}, bias {self.model.bias:+.1%}"
            )
        if self.model and self.model.left_out:
            lines.append(
                f"{self.model.left_out} blocks that take hardly more than calling a file are left "
                "out of the regression"
            )
        return "\n".join(lines)

    @functools.cached_property
    def _fitted(self) -> tuple[float, float]:
        return self._fit(self._summed)

    @functools.cached_property
    def _summed(self) -> list[NetworkTime]:
        """The measured networks whose blocks are all measured or can be predicted."""
        return [
            network
            for network in self.networks
            if not self.missing(blocks_of(network.spec).values()) or self.model is not None
        ]

    def _fit(self, networks: Sequence[NetworkTime]) -> tuple[float, float]:
        """Offset and scale of least relative squared error."""
        if not networks:
            return self.overhead_ms, 1.0
        measured = np.array([network.ms for network in networks])
        sums = np.array([self._sum(network.spec) for network in networks]) / measured
        if len(networks) >= LEAST_FOR_OFFSET:
            columns = np.stack([1 / measured, sums], axis=1)
            (offset, scale), *_ = np.linalg.lstsq(columns, np.ones(len(measured)), rcond=None)
            if offset >= 0 and scale > 0:
                return float(offset), float(scale)
        return 0.0, float(sums.sum() / (sums**2).sum())

    def _sum(self, spec: NetworkSpec) -> float:
        return sum(self._block_ms(block) for block in blocks_of(spec).values())

    def _block_ms(self, block: SingleBlock) -> float:
        if block.key in self.blocks:
            return self._net(self.blocks[block.key].ms)
        if block.key not in self._predicted:
            if self.model is None:
                raise ValueError(
                    "`latency_table` must have every block of the network, or at least "
                    f"{LEAST} blocks to predict others from. Received: {len(self.blocks)} "
                    f"without {block.label}"
                )
            self._predicted[block.key] = self.model.predict(block.spec)
        return self._predicted[block.key]

    def _net(self, ms: float) -> float:
        return max(SHORTEST, ms - self.overhead_ms)

    @functools.cached_property
    def _predicted(self) -> dict[str, float]:
        return {}


def _row(measured: BlockTime | NetworkTime) -> dict[str, Any]:
    fields = {field.name: getattr(measured, field.name) for field in dataclasses.fields(measured)}
    return {**fields, "spec": measured.spec.to_json()}


def _time(cls: type, row: Mapping[str, Any]) -> Any:
    names = [field.name for field in dataclasses.fields(cls)]
    fields = {name: row[name] for name in names}
    require(fields["ms"] > 0, "ms", "above 0", fields["ms"])
    fields["ms"] = _number(fields["ms"])
    return cls(**{**fields, "spec": NetworkSpec.from_json(fields["spec"])})


def _number(value: Any) -> float:
    require(is_number(value) and value >= 0, "latency_table", "numbers of at least 0", value)
    return float(value)
