r"""How fast strategies cover the front of NAS-Bench-Macro, where every accuracy is known.

The file is that of github.com/xiusu/NAS-Bench-Macro (Su et al., "Prioritized Architecture Sampling
with Monto-Carlo Tree Search", CVPR 2021): CIFAR-10 accuracies of 6,561 codings of eight layers,
3,969 distinct networks, each trained alone. Reports the share of the true hypervolume (accuracy
against MACs; reference: least accuracy, most MACs) that is covered after so many queries of
distinct networks: median and range over seeds. Evolution and coarse-to-fine get eight budgets,
evenly spaced, coarse-to-fine two candidates per budget and as many fine rounds as it takes;
random search has no limit but the most MACs. All else is as by default. Before that the file is
checked: MACs and parameters of every network against a count of its own, and that equal networks
are equal.

python benchmarks/search_tabular.py --table=nas-bench-macro_cifar10.json --csv=tabular.csv
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags

from bignas_tf.blocks import Block, ConvBlock, HeadBlock, MBConvBlock
from bignas_tf.cost import count
from bignas_tf.files import check_output
from bignas_tf.search import (
    NSGA2,
    Budget,
    CoarseToFine,
    Evolution,
    RandomSearch,
    RoundStrategy,
    TabularEvaluator,
    hypervolume,
    hypervolume_curve,
    measure,
    parse_objectives,
    worst_corner,
)
from bignas_tf.spaces import Gene, Genotype, Space
from bignas_tf.spec import NetworkSpec

_TABLE = flags.DEFINE_string("table", None, "The benchmark's JSON file.", required=True)
_QUERIES = flags.DEFINE_list("queries", ["50", "100", "200", "500"], "Where to look.")
_SEEDS = flags.DEFINE_integer("seeds", 20, "Searches of each strategy.", lower_bound=1)
_FIRST_SEED = flags.DEFINE_integer("first_seed", 0, "The others follow it.", lower_bound=0)
_JSON = flags.DEFINE_string("json", None, "File for the result.")
_CSV = flags.DEFINE_string("csv", None, "File for the shares of every seed.")
_PLOT = flags.DEFINE_string("plot", None, "File for a plot (.png or .svg).")

STAGES = (2, 3, 3)  # layers
CODINGS = 3 ** sum(STAGES)
OBJECTIVES = parse_objectives("accuracy:max,mmacs:min")
BUDGETS = 8
BATCH = 8


@dataclasses.dataclass(frozen=True)
class MacroSpace(Space):
    """Eight layers in three stages; each the identity, MB3 k3 or MB6 k5 (0, 1, 2).

    A stage's first layer halves the size and doubles the width; its identity is a 1x1
    convolution. Of the others it does not matter where the identities are.
    """

    name: str = "nas_bench_macro"
    classes: int = 10

    @functools.cached_property
    def genes(self) -> tuple[Gene, ...]:  # type: ignore[override]
        return tuple(
            Gene(f"stage{stage}_layer{layer}", (0, 1, 2), f"stage{stage}")
            for stage, layers in enumerate(STAGES, 1)
            for layer in range(1, layers + 1)
        )

    @property
    def resolutions(self) -> tuple[int, ...]:
        return (32,)

    @property
    def optional_ops(self) -> frozenset[str]:
        return frozenset()

    def canonical(self, genotype: Genotype) -> Genotype:
        """Identities behind the other layers of their stage, its first one apart."""
        values: list[int] = []
        for first, *others in self._stages(genotype):
            values += [first, *sorted(others, key=lambda value: value == 0)]
        return self.genotype(values)

    def spec(self, genotype: Genotype) -> NetworkSpec:
        blocks: list[Block] = [ConvBlock(name="stem", channels=32, activation="relu")]
        for stage, values in enumerate(self._stages(genotype), 1):
            for layer, value in enumerate(values, 1):
                name, channels, strides = f"stage{stage}_layer{layer}", 32 * 2**stage, 1
                if layer == 1:
                    strides = 2
                if value:
                    kernel_size, expand_ratio = ((3, 3), (5, 6))[value - 1]
                    blocks.append(
                        MBConvBlock(
                            name=name, channels=channels, kernel_size=kernel_size, strides=strides,
                            expand_ratio=expand_ratio, activation="relu",
                        )
                    )  # fmt: skip
                elif layer == 1:
                    blocks.append(
                        ConvBlock(
                            name=name, channels=channels, kernel_size=1, strides=strides,
                            activation="linear",
                        )
                    )  # fmt: skip
        blocks.append(HeadBlock(name="head", channels=1280, activation="relu"))
        return NetworkSpec((32, 32, 3), tuple(blocks), self.classes)

    def all_ops_spec(self, genotype: Genotype) -> NetworkSpec:
        """No supernet is made of this space.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"Space '{self.name}' is one of networks trained alone")

    @staticmethod
    def _stages(genotype: Genotype) -> list[tuple[int, ...]]:
        values = iter(genotype.values)
        return [tuple(next(values) for _ in range(layers)) for layers in STAGES]


def read_table(path: str, space: MacroSpace) -> dict[Genotype, float]:
    """Accuracy (0..1) of every distinct network.

    Raises:
        ValueError: for a file that is not the benchmark's, or one that contradicts the count
            of a network or itself.
    """
    data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    if not isinstance(data, dict) or len(data) != CODINGS:
        raise ValueError(f"`table` must have {CODINGS} codings. Received: {path}")
    table: dict[Genotype, float] = {}
    costs: dict[Genotype, tuple[int, int]] = {}
    for coding, entry in data.items():
        genotype = space.canonical(space.genotype([int(digit) for digit in coding]))
        if genotype not in costs:
            counted = count(genotype.spec())
            costs[genotype] = counted.macs, counted.params
        found = costs[genotype], table.setdefault(genotype, entry["mean_acc"] / 100)
        given = (entry["flops"], entry["params"]), entry["mean_acc"] / 100
        if found != given:
            raise ValueError(
                f"`table` must have (MACs, params), accuracy {found} for coding {coding}. "
                f"Received: {given}"
            )
    return table


def points_of(genotypes: Sequence[Genotype], table: Mapping[Genotype, float]) -> list[dict]:
    """What the hypervolume is of."""
    return [{"accuracy": table[g], "mmacs": measure(g, "mmacs")} for g in genotypes]


def searches(space: Space, queries: int) -> dict[str, Callable[[int], RoundStrategy]]:
    """How each strategy is made for a seed."""
    low, high = (measure(end, "mmacs") for end in (space.smallest(), space.biggest()))
    steps = range(1, BUDGETS + 1)
    budgets = [Budget("mmacs", low + (high - low) * step / BUDGETS) for step in steps]
    return {
        "random": lambda seed: RandomSearch(space, budgets[-1:], seed, queries),
        # With eight budgets but nothing to choose between skeletons; rounds until all is asked.
        "coarse_to_fine": lambda seed: CoarseToFine(
            space, budgets, seed, fine_candidates=2, fine_rounds=queries
        ),
        "evolution": lambda seed: Evolution(space, budgets, seed, queries),
        "nsga2": lambda seed: NSGA2(space, (), seed, queries),
    }


def search(strategy: RoundStrategy, table: Mapping[Genotype, float], queries: int) -> list[float]:
    """Hypervolume after every query; a search that ends early stays where it is."""
    evaluator = TabularEvaluator(table)
    while not strategy.finished and len(evaluator.evaluated) < queries:
        genotypes = strategy.ask(min(BATCH, queries - len(evaluator.evaluated)))
        strategy.tell(genotypes, evaluator.score(genotypes))
    every = points_of(list(table), table)
    found = points_of(evaluator.evaluated, table)
    curve = hypervolume_curve(found, OBJECTIVES, worst_corner(every, OBJECTIVES))
    return curve + curve[-1:] * (queries - len(curve))


def measured(
    space: Space, table: Mapping[Genotype, float], queries: int, seeds: Sequence[int]
) -> dict[str, list[list[float]]]:
    """Shares of the true hypervolume by strategy, seed and query."""
    from tqdm import tqdm

    every = points_of(list(table), table)
    whole = hypervolume(every, OBJECTIVES, worst_corner(every, OBJECTIVES))
    makers = searches(space, queries)
    shares: dict[str, list[list[float]]] = {name: [] for name in makers}
    with tqdm(total=len(makers) * len(seeds), unit="search") as bar:
        for name, make in makers.items():
            bar.set_description(name)
            for seed in seeds:
                curve = search(make(seed), table, queries)
                shares[name].append([volume / whole for volume in curve])
                bar.update()
    return shares


def summary(shares: Mapping[str, list[list[float]]], queries: Sequence[int]) -> list[dict]:
    """Median and range over the seeds, a row per strategy and number of queries."""
    rows = []
    for name, curves in shares.items():
        for number in queries:
            values = [curve[number - 1] for curve in curves]
            rows.append(
                {
                    "strategy": name,
                    "queries": number,
                    "median": statistics.median(values),
                    "low": min(values),
                    "high": max(values),
                }
            )
    return rows


def write_csv(path: str, shares: Mapping[str, list[list[float]]], seeds: Sequence[int],
              queries: Sequence[int]) -> None:  # fmt: skip
    """A row per strategy, seed and number of queries."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["strategy", "seed", "queries", "hypervolume_share"])
        for name, curves in shares.items():
            for seed, curve in zip(seeds, curves, strict=True):
                for number in queries:
                    writer.writerow([name, seed, number, f"{curve[number - 1]:.6f}"])


def main(argv: list[str]) -> None:
    """Searches, prints the table and writes what is asked for."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    if not all(word.isdigit() and int(word) > 0 for word in _QUERIES.value):
        raise app.UsageError(f"--queries must be positive integers, not {_QUERIES.value}")
    for output in (_JSON.value, _CSV.value, _PLOT.value):
        if output:
            check_output(pathlib.Path(output), overwrite=True)
    queries = sorted({int(word) for word in _QUERIES.value})
    seeds = range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value)
    space = MacroSpace()
    table = read_table(_TABLE.value, space)
    shares = measured(space, table, queries[-1], seeds)
    rows = summary(shares, queries)
    print(f"{len(table)} networks, seeds {seeds[0]} to {seeds[-1]}: share of the hypervolume")
    for row in rows:
        print("{strategy:15} {queries:5}  {median:.4f}  ({low:.4f} to {high:.4f})".format(**row))
    if _JSON.value:
        digest = hashlib.sha256(pathlib.Path(_TABLE.value).read_bytes()).hexdigest()
        result: dict[str, Any] = {"table_sha256": digest, "networks": len(table)}
        result |= {"seeds": [*seeds], "rows": rows}
        pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if _CSV.value:
        write_csv(_CSV.value, shares, seeds, queries)
    if _PLOT.value:
        from hypervolume_plot import draw_curves  # beside this file

        draw_curves(shares, pathlib.Path(_PLOT.value), "network queries", "share of hypervolume")


if __name__ == "__main__":
    app.run(main)
