"""What a search saves by scoring children that begin alike in a row.

Scores children of the coarse grid under --budget and of one fine round around the best of it,
once in the order of the search and once each by itself, and calibrates one child sequentially
and by averages of batches. Runs of neighbours, evenly spread over each phase, stand for it. Each
side runs in a fresh process, so that both pay for tracing, and the sides alternate: AB, then BA.
Starting TensorFlow and resizing images is not on the clock. The supernet is untrained and the
images are noise: neither changes the work. Reports ratios of times, of CPU times, which other
processes stretch less, and of the blocks that had to run.

python benchmarks/evaluation.py --space=cifar --budget=mmacs:5,10 --json=evaluation.json
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

_SPACE = flags.DEFINE_string("space", "cifar", "Search space.")
_BUDGET = flags.DEFINE_string("budget", "mmacs:5,10", "Of the search.")
_CALIBRATION = flags.DEFINE_integer("calibration", 2048, "Images.", lower_bound=1)
_VALIDATION = flags.DEFINE_integer("validation", 5000, "Images.", lower_bound=1)
_CHILDREN = flags.DEFINE_integer("children", 24, "At most, of each phase.", lower_bound=2)
_REPEATS = flags.DEFINE_integer("repeats", 2, "Measurements of each side.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File for the result.", required=True)

RUN = 8  # neighbours, as many as a worker of a search gets at once
SIDES = {
    "coarse": ("one_by_one", "together"),
    "fine": ("one_by_one", "together"),
    "calibration": ("sequential", "batch_average"),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a process measures; plain, so that it can be sent there."""

    space: str
    children: tuple[tuple[int, ...], ...]
    calibration: int
    validation: int
    side: str


def sample(genotypes: Sequence[Any], count: int) -> list[Any]:
    """Runs of up to `RUN` neighbours, evenly spread from the first to the last."""
    if len(genotypes) <= count:
        return list(genotypes)
    length = min(RUN, count)
    runs = count // length
    last = len(genotypes) - length
    starts = [round(i * last / (runs - 1)) if runs > 1 else last // 2 for i in range(runs)]
    return [genotype for start in starts for genotype in genotypes[start : start + length]]


def _split(count: int, space, seed: int):
    import numpy as np

    from bignas_tf.data import Split

    rng = np.random.default_rng(seed)
    side = max(space.resolutions)
    shape = (count, side, side, space.input_channels)
    labels = rng.integers(0, space.classes, count).astype(np.int32)
    return Split(labels, rng.integers(0, 256, shape, dtype=np.uint8))


class Clock:
    """Seconds and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Both."""
        began, cpu_began = self._began
        return time.perf_counter() - began, time.process_time() - cpu_began


def measured(setting: Setting) -> tuple[tuple[float, float], int]:
    """Seconds and CPU seconds of a side and the blocks that ran, in this process."""
    from bignas_tf.calibration import METHODS, batch_norm_statistics
    from bignas_tf.evaluation import ChildEvaluator
    from bignas_tf.shared_prefix import SharedPrefixes
    from bignas_tf.spaces import get_space
    from bignas_tf.supernet import Supernet

    space = get_space(setting.space)
    genotypes = [space.genotype(values) for values in setting.children]
    supernet = Supernet(space, seed=0, zero_gamma=False)
    splits = _split(setting.calibration, space, 0), _split(setting.validation, space, 1)
    evaluator = ChildEvaluator(supernet, *splits)
    # It keeps the last two resolutions only, and would resize while the clock runs.
    resolutions = sorted({genotype["resolution"] for genotype in genotypes})
    evaluator._images = {resolution: evaluator._at(resolution) for resolution in resolutions}
    if setting.side in METHODS:
        (genotype,) = genotypes
        images, _ = evaluator._at(genotype["resolution"])
        weights, spec = supernet.child_weights(genotype), genotype.spec()
        clock = Clock()
        batch_norm_statistics(spec, weights, images, method=setting.side)
        return clock.read(), _blocks(genotypes)

    ran = []
    advance = SharedPrefixes._advance

    def counted(self, state, group, needed):
        ran.append(group)
        return advance(self, state, group, needed)

    SharedPrefixes._advance = counted
    clock = Clock()
    for genotype in genotypes:
        if setting.side == "one_by_one":
            evaluator._prefixes._states.clear()
        evaluator.score([genotype])
    return clock.read(), len(ran)


def _blocks(genotypes) -> int:
    return sum(len({op.block for op in genotype.spec().ops()}) for genotype in genotypes)


def _phase(name: str, genotypes: Sequence[Any], repeats: int) -> dict[str, Any]:
    """Both sides of a phase, in alternating order, each time in a new process."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES[name]}
    cpu: dict[str, list[float]] = {side: [] for side in SIDES[name]}
    ran = {}
    for repeat in range(repeats):
        for side in SIDES[name][:: 1 if repeat % 2 == 0 else -1]:
            setting = Setting(
                genotypes[0].space.name,
                tuple(tuple(genotype.values) for genotype in genotypes),
                _CALIBRATION.value,
                _VALIDATION.value,
                side,
            )
            spawn = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
                taken, ran[side] = process.submit(measured, setting).result()
            for found, value in zip((seconds, cpu), taken, strict=True):
                found[side].append(round(value, 3))
    first, second = SIDES[name]
    row = {
        "phase": name,
        "children": len(genotypes),
        **{f"{side}_s": found for side, found in seconds.items()},
        **{f"{side}_cpu_s": found for side, found in cpu.items()},
        "ratio": round(sum(seconds[first]) / sum(seconds[second]), 3),
        "cpu_ratio": round(sum(cpu[first]) / sum(cpu[second]), 3),
        "blocks_ratio": round(ran[first] / ran[second], 3),
    }
    print(row, flush=True)
    return row


def main(argv: list[str]) -> None:
    """Measures and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    from bignas_tf.deploy.latency import host_conditions
    from bignas_tf.files import check_output
    from bignas_tf.search.budget import measure, parse_budgets
    from bignas_tf.search.coarse_to_fine import CoarseToFine
    from bignas_tf.spaces import get_space

    output = pathlib.Path(_JSON.value)
    check_output(output, overwrite=True)
    space = get_space(_SPACE.value)
    strategy = CoarseToFine(space, parse_budgets(_BUDGET.value), seed=0, fine_rounds=1)
    coarse = strategy.ask(10_000)
    # The costliest under a budget stands for the most accurate.
    strategy.tell(coarse, [{"accuracy": measure(g, "mmacs") / 1e4} for g in coarse])
    fine = strategy.ask(10_000)
    phases = {
        "coarse": sample(coarse, _CHILDREN.value),
        "fine": sample(fine, _CHILDREN.value),
        "calibration": [space.biggest()],
    }
    rows = [_phase(name, genotypes, _REPEATS.value) for name, genotypes in phases.items()]
    names = ("space", "budget", "calibration", "validation", "repeats")
    conditions = {flag: flags.FLAGS[flag].value for flag in names}
    result = {**conditions, **host_conditions(), "rows": rows}
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
