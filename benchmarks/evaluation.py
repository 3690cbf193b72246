"""What a search saves by scoring children that begin alike in a row.

Scores the coarse grid under --budget and one fine round around the best of it, once in the
order of the search and once each child by itself, and one child calibrated sequentially and by
averages of batches. The supernet is untrained and the images are noise: neither changes the
work. Reports ratios of times and, beside them, of the blocks that had to run.

python benchmarks/evaluation.py --space=cifar --budget=mmacs:5,10 --json=evaluation.json
"""

import json
import os
import pathlib
import time

from absl import app, flags

_SPACE = flags.DEFINE_string("space", "cifar", "Search space.")
_BUDGET = flags.DEFINE_string("budget", "mmacs:5,10", "Of the search.")
_CALIBRATION = flags.DEFINE_integer("calibration", 2048, "Images.", lower_bound=1)
_VALIDATION = flags.DEFINE_integer("validation", 5000, "Images.", lower_bound=1)
_CHILDREN = flags.DEFINE_integer("children", 48, "At most, of each phase.", lower_bound=2)
_JSON = flags.DEFINE_string("json", None, "File for the result.", required=True)


def _split(count: int, space, seed: int):
    import numpy as np

    from bignas_tf.data import Split

    rng = np.random.default_rng(seed)
    side = max(space.resolutions)
    shape = (count, side, side, space.input_channels)
    labels = rng.integers(0, space.classes, count).astype(np.int32)
    return Split(labels, rng.integers(0, 256, shape, dtype=np.uint8))


def _timed(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _blocks(genotypes) -> int:
    return sum(len({op.block for op in genotype.spec().ops()}) for genotype in genotypes)


def _phase(name: str, genotypes, new_evaluator) -> dict[str, object]:
    """One phase in a row against one by one; images are resized before the clock starts."""
    from bignas_tf.shared_prefix import SharedPrefixes

    ran = []
    advance = SharedPrefixes._advance

    def counted(self, state, group, needed):
        ran.append(group)
        return advance(self, state, group, needed)

    evaluator = new_evaluator()
    for resolution in {genotype["resolution"] for genotype in genotypes}:
        evaluator._at(resolution)
    evaluator.score(genotypes[:1])  # what TensorFlow does but once
    evaluator._prefixes._states.clear()
    SharedPrefixes._advance = counted
    together = _timed(lambda: evaluator.score(genotypes))
    SharedPrefixes._advance = advance
    alone = 0.0
    for genotype in genotypes:
        evaluator._prefixes._states.clear()
        alone += _timed(lambda genotype=genotype: evaluator.score([genotype]))
    row = {
        "phase": name,
        "children": len(genotypes),
        "together_s": round(together, 2),
        "one_by_one_s": round(alone, 2),
        "ratio": round(alone / together, 3),
        "blocks_ratio": round(_blocks(genotypes) / len(ran), 3),
    }
    print(row, flush=True)
    return row


def _calibration(genotype, evaluator, supernet) -> dict[str, object]:
    from bignas_tf.calibration import METHODS, batch_norm_statistics

    images, _ = evaluator._at(genotype["resolution"])
    weights, spec = supernet.child_weights(genotype), genotype.spec()
    seconds = {
        method: min(
            _timed(lambda m=method: batch_norm_statistics(spec, weights, images, method=m))
            for _ in range(3)
        )
        for method in METHODS
    }
    row = {"phase": "calibration", **{k: round(v, 3) for k, v in seconds.items()}}
    row["ratio"] = round(seconds["sequential"] / seconds["batch_average"], 3)
    print(row, flush=True)
    return row


def main(argv: list[str]) -> None:
    """Measures and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")  # faster; read when TensorFlow loads
    from bignas_tf.deploy.latency import host_conditions
    from bignas_tf.evaluation import ChildEvaluator
    from bignas_tf.search.budget import measure, parse_budgets
    from bignas_tf.search.coarse_to_fine import CoarseToFine
    from bignas_tf.spaces import get_space
    from bignas_tf.supernet import Supernet

    space = get_space(_SPACE.value)
    supernet = Supernet(space, seed=0, zero_gamma=False)
    splits = _split(_CALIBRATION.value, space, 0), _split(_VALIDATION.value, space, 1)

    def new_evaluator():
        return ChildEvaluator(supernet, *splits)

    strategy = CoarseToFine(space, parse_budgets(_BUDGET.value), seed=0, fine_rounds=1)
    coarse = strategy.ask(10_000)
    # The costliest under a budget stands for the most accurate.
    strategy.tell(coarse, [{"accuracy": measure(g, "mmacs") / 1e4} for g in coarse])
    fine = strategy.ask(10_000)
    rows = [
        _phase("coarse", coarse[: _CHILDREN.value], new_evaluator),
        _phase("fine", fine[: _CHILDREN.value], new_evaluator),
        _calibration(space.biggest(), new_evaluator(), supernet),
    ]
    conditions = {
        flag: flags.FLAGS[flag].value for flag in ("space", "budget", "calibration", "validation")
    }
    result = {**conditions, **host_conditions(), "rows": rows}
    pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
