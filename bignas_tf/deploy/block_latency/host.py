"""Latency tables: a space's blocks, and a few whole networks, measured on this machine."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bignas_tf import cost
from bignas_tf.checks import require, require_int
from bignas_tf.deploy.block_latency.files import (
    BLOCK,
    NETWORK,
    OVERHEAD,
    Timed,
    check_quantization,
    timed_networks,
    write_files,
)
from bignas_tf.deploy.latency.host import host_conditions
from bignas_tf.deploy.latency.process import started
from bignas_tf.deploy.latency.spread import relative_spread
from bignas_tf.files import check_output
from bignas_tf.latency_table import (
    BlockTime,
    LatencyTable,
    NetworkTime,
    SingleBlock,
    space_blocks,
)
from bignas_tf.latency_table.model import LEAST
from bignas_tf.spaces import Genotype, Space
from bignas_tf.spec import NetworkSpec

BATCH = 24  # files that take turns; their converted files are on the disk together
ROUNDS, WARMUP, RUNS = 12, 2, 5
QUARTILE, STATISTIC = 25, "lower quartile"
MACHINE = ("cpu", "ai_edge_litert")  # conditions that one table must have throughout


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """What goes into a table.

    Attributes:
        space: whose blocks are measured.
        resolutions: of the images, in pixels; None for all of the space.
        quantization: the value of a `Quantization`.
        threads: int, at least 1.
        blocks: how many of the blocks at most, drawn so that every kind is among them; 20 or
            more, which the others are predicted from. None for all.
        networks: how many whole networks, from small to big, are measured to compare with.
        seed: of weights, draws and order.

    Raises:
        ValueError: for a value that cannot be.
    """

    space: Space
    resolutions: tuple[int, ...] | None = None
    quantization: str = "float32"
    threads: int = 1
    blocks: int | None = None
    networks: int = 8
    seed: int = 0

    def __post_init__(self):
        check_quantization(self.quantization)
        require_int("threads", self.threads)
        if self.blocks is not None:
            require_int("blocks", self.blocks)
        require_int("networks", self.networks, low=0)
        require_int("seed", self.seed, low=0)

    def header(self) -> dict[str, Any]:
        """What the table's file says of it, as plain JSON."""
        return {
            "space": self.space.name,
            "classes": self.space.classes,
            "resolutions": list(self.resolutions or self.space.resolutions),
            "quantization": self.quantization,
            "threads": self.threads,
            "seed": self.seed,
            "planned_blocks": len(self.drawn_blocks()),
            "planned_networks": len(self.drawn_networks()),
        }

    def drawn_blocks(self) -> list[SingleBlock]:
        """The blocks to measure, in the order of the networks."""
        every = list(space_blocks(self.space, self.resolutions).values())
        if self.blocks is None or self.blocks >= len(every):
            return every
        rng = np.random.Generator(np.random.Philox(self.seed))
        kinds: dict[str, list[int]] = {}
        for index, block in enumerate(every):
            kinds.setdefault(block.spec.blocks[0].type, []).append(index)
        allowed = f"at least {LEAST}, to predict the others from, or left out for all {len(every)}"
        require(self.blocks >= LEAST, "blocks", allowed, self.blocks)
        drawn = {int(rng.choice(members)) for members in kinds.values()}
        others = [index for index in range(len(every)) if index not in drawn]
        # Neighbours in this order are alike: one of each run of them is drawn.
        strata = np.array_split(others, self.blocks - len(drawn))
        drawn |= {int(rng.choice(stratum)) for stratum in strata}
        return [every[index] for index in sorted(drawn)]

    def drawn_networks(self) -> dict[str, NetworkSpec]:
        """The whole networks by name, from about the smallest to about the biggest.

        Fewer in a space so small that some would be drawn twice.
        """
        rng = np.random.Generator(np.random.Philox([self.seed, 1]))
        levels = np.linspace(0, 1, self.networks) if self.networks > 1 else np.array([0.5])
        drawn = [self._draw(level, rng).spec() for level in levels[: self.networks]]
        return {f"{i:02}": spec for i, spec in enumerate(drawn) if spec not in drawn[:i]}

    def _draw(self, level: float, rng: np.random.Generator) -> Genotype:
        """A genotype whose genes are at about that share of their choices."""
        values = []
        for gene in self.space.genes:
            choices: Sequence[int] = gene.choices
            if gene.name == "resolution" and self.resolutions:
                choices = self.resolutions
            values.append(choices[int(rng.binomial(len(choices) - 1, level))])
        return self.space.canonical(self.space.genotype(values))


def measure_table(
    plan: TablePlan,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> LatencyTable:
    """Measures a table, or goes on with one that was stopped.

    Each block is converted to a TFLite file of its own with random weights. Up to `BATCH`
    files take turns in one process; the lower quartile of their times is what a machine that
    is busy now and then does not change. Two blocks are in every batch: as the machine gets
    slower or faster, all times of a batch are scaled by theirs. What calling a file costs is
    measured beside them and taken off each block, and whole networks say what the sum of
    blocks lacks (`LatencyTable`). The table is on the disk after each batch.

    Args:
        plan: what to measure.
        output: JSON file of the table; the converted files of a batch are in a folder beside
            it while it is measured.
        overwrite: bool, whether a table that is there is given up.
        progress: bool, shows a bar with the time left where stderr is a terminal.

    Raises:
        ValueError: for a table of another plan or machine.
        OSError: if the output cannot be written.
        ConversionError: if TensorFlow's converter fails.
        RuntimeError: if a process dies.
    """
    output = Path(output)
    check_output(output, overwrite=True)
    blocks = plan.drawn_blocks()
    networks = timed_networks(blocks, plan.drawn_networks())
    header = {**plan.header(), "device": "host", "clock": clock(plan.threads)}
    table = _opened(header, output, overwrite)
    order = np.random.Generator(np.random.Philox([plan.seed, 2])).permutation(len(networks))
    known = {*table.blocks, *(_name(network.spec) for network in table.networks)}
    rest = [networks[i] for i in order if networks[i].kind != OVERHEAD]
    rest = [n for n in rest if (_name(n.spec) if n.kind == NETWORK else n.key) not in known]
    anchors = [n for n in networks if n.kind == OVERHEAD] + _anchors(networks)
    folder = output.with_name(f"{output.name}.files")
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    total = len(networks) - 1
    with tqdm(
        total=total, initial=total - len(rest), desc="blocks", unit="file",
        disable=None if progress else True,
    ) as bar:  # fmt: skip
        for start in range(0, len(rest), BATCH):
            batch = rest[start : start + BATCH]
            _add(table, _timed(folder, anchors, batch, header, bar.update), batch, anchors)
            table.write(output)
            # Only now: what is stopped before finds its files again.
            shutil.rmtree(folder / "batch")
    if folder.exists():
        shutil.rmtree(folder)
    return LatencyTable.read(output)


def clock(threads: int) -> str:
    """What the times of `timed_files` are times of."""
    return "CPU time of the thread" if threads == 1 else "time"


def _opened(header: dict[str, Any], output: Path, overwrite: bool) -> LatencyTable:
    """The table of an earlier call, or a new one."""
    now = host_conditions()
    new = LatencyTable({**header, "statistic": STATISTIC, "conditions": now}, 0.0, {})
    if overwrite or not output.exists():
        return new
    table = LatencyTable.read(output)
    before = table.header.get("conditions", {})
    was = {name: table.header.get(name) for name in header}
    was |= {name: before.get(name) for name in MACHINE}
    now_is = {**header, **{name: now[name] for name in MACHINE}}
    different = {name: value for name, value in was.items() if value != now_is[name]}
    allowed = f"a new file, or the table with {different} there; `overwrite` starts anew"
    given = {name: now_is[name] for name in different}
    require(not different, "output", allowed, given)
    return table


def _name(spec: NetworkSpec) -> str:
    return repr(spec.to_json())


def _anchors(networks: Sequence[Timed]) -> list[Timed]:
    """Two blocks, one rather small and one rather big."""
    blocks = sorted((n for n in networks if n.kind == BLOCK), key=_macs)
    return [blocks[len(blocks) // 3], blocks[2 * len(blocks) // 3]]


def _macs(network: Timed) -> int:
    return cost.count(network.spec).macs


def _timed(
    folder: Path,
    anchors: Sequence[Timed],
    batch: Sequence[Timed],
    header: dict[str, Any],
    update: Callable[[], Any],
) -> dict[str, np.ndarray]:
    """Milliseconds of the files of a batch by name, `(rounds, runs)`."""

    def each(networks: Sequence[Timed]) -> Iterator[Timed]:
        for network in networks:
            yield network
            update()

    # A folder that a killed call left may hold other files than this batch.
    wanted = {network.file for network in (*anchors, *batch)}
    files = folder / "batch"
    write_files(folder / "anchors", anchors, header)
    write_files(files, batch, header, each)
    for network in anchors:
        shutil.copyfile(folder / "anchors" / network.file, files / network.file)
    for path in files.glob("*.tflite"):
        if path.name not in wanted:
            path.unlink()
    return timed_files(files, header["threads"])


def timed_files(folder: Path, threads: int) -> dict[str, np.ndarray]:
    """Milliseconds of the TFLite files of a folder by name, as a table takes them.

    Args:
        folder: of at least one file.
        threads: int, at least 1; with 1 the clock is the thread's CPU time (`clock`).

    Returns:
        `(ROUNDS, RUNS)` of each file; a table keeps `lower_quartile`.

    Raises:
        RuntimeError: if the process dies.
    """
    names = sorted(path.name for path in folder.glob("*.tflite"))
    with started(os.fspath(folder), threads, "xnnpack", "block_latency.worker") as worker:
        for _ in range(ROUNDS):
            worker.round(WARMUP, RUNS)
        times = np.reshape(worker.nanoseconds, (ROUNDS, len(names), RUNS)) / 1e6
    return {name: times[:, i] for i, name in enumerate(names)}


def lower_quartile(times: np.ndarray) -> float:
    """The statistic of tables: what a machine that is busy now and then does not change."""
    return float(np.percentile(times, QUARTILE))


def _add(
    table: LatencyTable,
    times: dict[str, np.ndarray],
    batch: Sequence[Timed],
    anchors: Sequence[Timed],
) -> None:
    """Adds a batch to the table, scaled by what happened to the anchors since the first one."""
    now = {network.file: lower_quartile(times[network.file]) for network in anchors}
    first = table.header.setdefault("anchors_ms", now)
    table.overhead_ms = first[anchors[0].file]
    factor = float(np.median([first[network.file] / now[network.file] for network in anchors[1:]]))
    for network in batch:
        found = times[network.file]
        ms = factor * lower_quartile(found)
        spread = relative_spread(np.percentile(found, QUARTILE, axis=1).tolist())
        if network.kind == NETWORK:
            table.networks = (*table.networks, NetworkTime(network.spec, ms, spread))
        else:
            table.blocks[network.key] = BlockTime(network.label, network.spec, ms, spread)
    table.header.setdefault("batches", []).append(
        {"files": len(batch), "factor": factor, "conditions": host_conditions()}
    )
