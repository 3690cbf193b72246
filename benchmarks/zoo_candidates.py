r"""Which of the configurations that match a published size are fast?

The paper gives MACs and parameters of its models S, M, L and XL, not their configurations.
Many genotypes of the space `bignas` match both within 1 %. This looks for balanced ones
(`balanced`) that a linear model of latency calls fast, measures them on one thread in
float32, fits the model to what it measured, and looks and measures once more.

    python benchmarks/zoo_candidates.py --json=zoo_candidates.json \
        --presets=bignas_tf/zoo/bignasmodel.json

Two CPU cores: 12 min, most of it TFLite conversion; converted files are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags

from bignas_tf import ops
from bignas_tf.cost import count
from bignas_tf.files import check_output, replacing
from bignas_tf.spaces import Genotype, get_space

FLAGS = flags.FLAGS
flags.DEFINE_string("json", None, "File for the result.", required=True)
flags.DEFINE_string("presets", None, "File for the chosen of each size, as zoo presets.")
flags.DEFINE_string("cache", "runs/benchmarks/zoo_candidates", "Folder of the .tflite files.")
flags.DEFINE_list("sizes", ["S", "M", "L", "XL"], "Sizes to look at.")
flags.DEFINE_bool("balanced", True, "Only balanced networks; --nobalanced shows what that costs.")
flags.DEFINE_integer("seed", 0, "Seed of the search and of the kernels.")
flags.DEFINE_integer("starts", 200, "Random starts per size and resolution.")
flags.DEFINE_integer("per_round", 3, "Candidates measured per size and round.")
flags.DEFINE_integer("rounds", 2, "Rounds of search, measurement and fit.")

SPACE = get_space("bignas")
TOLERANCE = 0.01
STEPS = 150


class Target(NamedTuple):
    """A published model, and the resolutions at which its size can be met."""

    mmacs: float
    params_m: float
    top1_percent: float
    resolutions: tuple[int, ...]


TARGETS = {
    "S": Target(242, 4.5, 76.5, (192,)),
    "M": Target(418, 5.5, 78.9, (192, 224)),
    "L": Target(586, 6.4, 79.5, (224, 256)),
    "XL": Target(1040, 9.5, 80.9, (256, 288)),
}
PUBLISHED_IN = "Yu et al., BigNAS, ECCV 2020, arXiv 2003.11142"
ORIGIN = (
    "The per-stage configuration is ours, the paper did not publish its own: measured to be fast "
    "(float32, one thread, LiteRT on x86) among balanced networks of the space that match the "
    "published MACs and parameters within 1 % (benchmarks/zoo_candidates.py)."
)


class Load(NamedTuple):
    """What a network does, in millions; latency is modelled as linear in the last three."""

    macs: float
    params: float
    convolution_macs: float
    depthwise_macs: float
    elements: float


# Milliseconds per million, before anything is measured: single-thread XNNPACK on x86.
PRIOR = np.array([0.018, 0.12, 0.35])
WEIGHT_OF_PRIOR = 0.3


def load_by_block(genotype: Genotype) -> dict[str, np.ndarray]:
    """The `Load` of every block, as arrays."""
    spec = genotype.spec()
    shapes = ops.shapes(spec.ops(), spec.input_shape)
    loads: dict[str, np.ndarray] = {}
    for op in spec.ops():
        positions = int(np.prod(shapes[op.name][:-1]))
        weights = {name: int(np.prod(shape)) for name, shape in ops.weight_shapes(op).items()}
        macs = weights.get("kernel", 0) * positions
        depthwise = isinstance(op, ops.DepthwiseConv)
        # A batch normalization is folded into its convolution.
        elements = 0 if isinstance(op, ops.BatchNorm) else positions * op.channels
        load = [macs, sum(weights.values()), (not depthwise) * macs, depthwise * macs, elements]
        block = op.block.replace("top", "head")
        loads[block] = loads.get(block, np.zeros(5)) + np.array(load) / 1e6
    return loads


_KNOWN: dict[tuple, np.ndarray] = {}


def _blocks(g: Genotype) -> Iterator[tuple[str, tuple]]:
    """Blocks of `g`, each with everything that its load depends on."""
    resolution, width = g["resolution"], g["stem_width"]
    yield "stem", ("stem", resolution, width)
    for stage in range(1, 8):
        out, kernel = g[f"stage{stage}_width"], g[f"stage{stage}_kernel"]
        for block in range(1, g[f"stage{stage}_depth"] + 1):
            key = (stage, block == 1, resolution, width, out, kernel)
            yield f"stage{stage}_block{block}", key
            width = out
    yield "head", ("head", resolution, width, g["head_width"])


def load_of(genotype: Genotype) -> Load:
    """The load of a network, a sum over blocks that are counted once each."""
    blocks = list(_blocks(genotype))
    if any(key not in _KNOWN for _, key in blocks):
        counted = load_by_block(genotype)
        _KNOWN.update({key: counted[name] for name, key in blocks})
    return Load(*np.sum([_KNOWN[key] for _, key in blocks], axis=0))


def miss(load: Load, target: Target) -> float:
    """The larger relative distance from the published MACs and parameters."""
    return max(abs(load.macs / target.mmacs - 1), abs(load.params / target.params_m - 1))


def balanced(g: Genotype) -> bool:
    """Whether accuracy can be expected of it: no stage starved for another's sake.

    At least two of the five stages with a choice have 5x5 kernels, the two deep stages
    differ by at most two blocks, depth does not fall towards them, and the costly last
    stage has half of their depth at most.
    """
    kernels = sum(g[f"stage{stage}_kernel"] == 5 for stage in range(3, 8))
    *middle, deep, last = [g[f"stage{stage}_depth"] for stage in range(3, 8)]
    ordered = middle == sorted(middle) and 2 * last <= deep
    return kernels >= 2 and abs(middle[-1] - deep) <= 2 and ordered


def predicted_ms(load: Load, coefficients: np.ndarray) -> float:
    """Latency by the linear model."""
    return float(np.dot(load[2:], coefficients))


def search(target: Target, coefficients: np.ndarray, seed: int) -> list[Genotype]:
    """Balanced genotypes that match `target`, the fastest by the model first."""
    found: dict[Genotype, float] = {}
    for resolution in target.resolutions:
        rng = np.random.Generator(np.random.Philox([seed, resolution]))
        restrict = {"resolution": (resolution,)}
        for _ in range(FLAGS.starts):
            genotype = SPACE.draw(rng, restrict)
            rank = _rank(genotype, target, coefficients)
            for _ in range(STEPS):
                other = SPACE.mutate(genotype, rng).replace(resolution=resolution)
                other_rank = _rank(other, target, coefficients)
                if other_rank <= rank:
                    genotype, rank = other, other_rank
                if rank[0] == 0:
                    found[genotype] = rank[1]
    return sorted(found, key=found.__getitem__)


def _rank(genotype: Genotype, target: Target, coefficients: np.ndarray) -> tuple[float, float]:
    """Smaller is better: first a matching size and balance, then the predicted latency."""
    load = load_of(genotype)
    excess = max(0.0, miss(load, target) - 0.9 * TOLERANCE) + (
        0.05 if FLAGS.balanced and not balanced(genotype) else 0
    )
    return excess, predicted_ms(load, coefficients)


def distinct(genotypes: list[Genotype], count: int) -> list[Genotype]:
    """The first `count` of which no two differ in fewer than four genes."""
    chosen: list[Genotype] = []
    for genotype in genotypes:
        differences = [
            sum(a != b for a, b in zip(genotype.values, other.values, strict=True))
            for other in chosen
        ]
        if all(difference >= 4 for difference in differences) and len(chosen) < count:
            chosen.append(genotype)
    return chosen


def fit(loads: list[Load], measured_ms: list[float]) -> np.ndarray:
    """Coefficients of least squared relative error, held to the prior where data are few."""
    rows = np.array([load[2:] for load in loads]) / np.array(measured_ms)[:, None]
    scale = np.median(rows @ PRIOR)
    prior = PRIOR / scale
    rows = np.vstack([rows, WEIGHT_OF_PRIOR * np.diag(1 / prior)])
    values = np.concatenate([np.ones(len(measured_ms)), np.full(3, WEIGHT_OF_PRIOR)])
    return np.maximum(np.linalg.lstsq(rows, values, rcond=None)[0], 0.1 * prior)


def tflite_path(genotype: Genotype) -> Path:
    """The converted network, from the cache or now."""
    digest = hashlib.sha256(repr(genotype.values).encode()).hexdigest()[:16]
    path = Path(FLAGS.cache) / f"{digest}.tflite"
    if not path.exists():
        from bignas_tf.deploy.block_latency.files import content

        data = content(genotype.spec(), "float32", FLAGS.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    return path


def measure(genotypes: list[Genotype]) -> list[tuple[float, float]]:
    """Median and smallest milliseconds of each, interleaved on one thread."""
    from bignas_tf.deploy import latency

    paths = [tflite_path(genotype) for genotype in genotypes]
    times = latency.measure(paths, threads=1, warmup=3, runs=10, rounds=6, progress=False)
    return [(time.median_ms, time.min_ms) for time in times]


def run() -> dict:
    """Searches, measures and fits, `--rounds` times; the result is JSON."""
    coefficients, chosen = PRIOR, {size: [] for size in FLAGS.sizes}
    for number in range(FLAGS.rounds):
        for size in FLAGS.sizes:
            candidates = search(TARGETS[size], coefficients, FLAGS.seed + number)
            fresh = [genotype for genotype in candidates if genotype not in chosen[size]]
            chosen[size] += distinct(fresh, FLAGS.per_round)
            print(f"round {number + 1}, {size}: {len(candidates)} match", flush=True)
        every = [genotype for size in FLAGS.sizes for genotype in chosen[size]]
        times = dict(zip(every, measure(every), strict=True))
        # Of the smallest times: a busy machine adds to all others.
        coefficients = fit([load_of(g) for g in every], [times[g][1] for g in every])
        print("ms per million: " + ", ".join(f"{c:.4f}" for c in coefficients), flush=True)
    return {
        "seed": FLAGS.seed,
        "ms_per_million": dict(zip(Load._fields[2:], coefficients.tolist(), strict=True)),
        "sizes": {size: _rows(chosen[size], times, coefficients) for size in FLAGS.sizes},
    }


def _rows(genotypes: list[Genotype], times: dict, coefficients: np.ndarray) -> list[dict]:
    rows = [
        {
            "genotype": genotype.as_dict(),
            "mmacs": round(float(load_of(genotype).macs), 3),
            "params_m": round(float(load_of(genotype).params), 4),
            "median_ms": round(times[genotype][0], 3),
            "min_ms": round(times[genotype][1], 3),
            "predicted_ms": round(predicted_ms(load_of(genotype), coefficients), 3),
        }
        for genotype in genotypes
    ]
    return sorted(rows, key=lambda row: row["min_ms"])


def preset(size: str, genotype: Genotype) -> dict:
    """The entry of a network in the zoo's `bignasmodel.json`."""
    target, spec = TARGETS[size], genotype.spec()
    cost = count(spec)
    return {
        "spec": spec.to_json(),
        "space": SPACE.name,
        "genotype": genotype.as_dict(),
        "resolution": genotype["resolution"],
        "image_size": None,
        "crop": 1.0,
        "interpolation": "bicubic, antialias",
        "labels": None,
        "input_range": [0, 255],  # the models of the zoo preprocess
        "macs": cost.macs,
        "params": cost.params,
        "ours": True,
        "published": {
            "mmacs": target.mmacs,
            "params_m": target.params_m,
            "top1_percent": target.top1_percent,
            "source": PUBLISHED_IN,
        },
        "origin": ORIGIN,
        "weights": None,
        "accuracy": None,
    }


def write_presets(path: str, chosen: dict[str, Genotype]) -> None:
    """Writes presets, one block of a network per line."""
    text = json.dumps(
        {f"bignasmodel_{s.lower()}": preset(s, g) for s, g in chosen.items()}, indent=1
    )
    # Lists of numbers, and objects with at most one object inside, fit on a line.
    short = r"\{[^{}]*(\{[^{}]*\}[^{}]*)?\}|\[[^\[\]{}]*\]"
    text = re.sub(short, lambda found: " ".join(found[0].split()), text)
    text = re.sub(r"(?<=[\[{]) | (?=[\]}])", "", text)
    Path(path).write_text(text + "\n", encoding="utf-8")


def choose(rows: list[dict]) -> dict:
    """The most 5x5 stages, then blocks, among those measured within 5 % of the fastest.

    Smaller differences of the smallest times are noise; larger kernels and depth are not.
    """

    def merit(row: dict) -> tuple[int, int]:
        genes = row["genotype"].items()
        kernels = sum(name.endswith("_kernel") and value == 5 for name, value in genes)
        return kernels, sum(value for name, value in genes if name.endswith("_depth"))

    fastest = min(row["min_ms"] for row in rows)
    return max((row for row in rows if row["min_ms"] <= 1.05 * fastest), key=merit)


def main(argv: list[str]) -> None:
    """Runs it and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    for output in (FLAGS.json, FLAGS.presets):
        if output:
            check_output(Path(output), overwrite=True)
    result = run()
    Path(FLAGS.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    chosen = {size: choose(rows) for size, rows in result["sizes"].items()}
    for size, row in chosen.items():
        print(f"{size}: {row}")
    if FLAGS.presets:
        genotypes = {size: SPACE.genotype(row["genotype"]) for size, row in chosen.items()}
        write_presets(FLAGS.presets, genotypes)


if __name__ == "__main__":
    app.run(main)
