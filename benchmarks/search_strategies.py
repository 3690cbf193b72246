r"""What NSGA-II and coarse-to-fine find in a trained run against random search.

Every strategy gets the same number of evaluations, the same budgets and the seeds 0, 1, ...; a
child's accuracy is measured once, on held-out images, and shared by all. FOLDER/points.jsonl has
every evaluation, so that a second call goes on after the last; evaluations.csv and summary.csv say
how good the front is after so many evaluations, hypervolume.png shows it. The figure is the
hypervolume of accuracy against MMACs over the range of MMACs; the reference is the least accuracy
that any of the searches met, and the biggest child's MMACs. So it tells by how many points the best
child under a budget is better than the worst of all, on average over all budgets from the smallest
child's MMACs to the biggest's (nothing where none was found yet).

python benchmarks/search_strategies.py --workdir=runs/cifar10 --folder=runs/benchmarks/strategies
"""

from __future__ import annotations

import csv
import pathlib
import statistics
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from bignas_tf.checks import require
from bignas_tf.files import read_json, write_json
from bignas_tf.search import (
    NSGA2,
    Budget,
    CachedEvaluator,
    CoarseToFine,
    Evolution,
    RandomSearch,
    RoundStrategy,
    hypervolume_curve,
    measure,
    parse_budgets,
    parse_objectives,
    skeletons,
)
from bignas_tf.spaces import Space

STRATEGIES = ("random", "coarse_to_fine", "nsga2", "evolution")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.", required=True)
_FOLDER = flags.DEFINE_string("folder", None, "For the results.", required=True)
_DATA = flags.DEFINE_string("data", None, "Source, if it has moved since the training.")
_STRATEGIES = flags.DEFINE_multi_enum(
    "strategy", list(STRATEGIES[:3]), STRATEGIES, "Given once or more."
)
_EVALUATIONS = flags.DEFINE_integer("evaluations", 100, "Of each search.", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 1000, "Held-out ones, at most.", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Searches of each strategy.", lower_bound=1)
_BUDGET = flags.DEFINE_string("budget", None, "Such as mmacs:5,8; default: four, evenly spaced.")
_FINE_CANDIDATES = flags.DEFINE_integer(
    "fine_candidates", 4, "Of coarse-to-fine per budget and round, as long as there are rounds."
)

OBJECTIVES = parse_objectives("accuracy:max,mmacs:min")
IDENTITY, POINTS = "identity.json", "points.jsonl"
BUDGETS = 4
SHARES = (0.25, 0.5, 1.0)  # of the evaluations: rows of the summary


def budgets_of(space: Space, text: str | None) -> list[Budget]:
    """Those given, or evenly spaced ones up to the biggest child."""
    if text is not None:
        return parse_budgets(text)
    low, high = (measure(end, "mmacs") for end in (space.smallest(), space.biggest()))
    steps = range(1, BUDGETS + 1)
    return [Budget("mmacs", low + (high - low) * step / BUDGETS) for step in steps]


def searches(
    space: Space, budgets: Sequence[Budget], evaluations: int, fine_candidates: int
) -> dict[str, Callable[[int], RoundStrategy]]:
    """How each strategy is made for a seed."""
    return {
        "random": lambda seed: RandomSearch(space, budgets, seed, evaluations),
        "coarse_to_fine": lambda seed: CoarseToFine(
            space, budgets, seed, fine_candidates=fine_candidates, fine_rounds=evaluations
        ),
        "nsga2": lambda seed: NSGA2(space, budgets, seed, evaluations),
        "evolution": lambda seed: Evolution(space, budgets, seed, evaluations),
    }


def open_run(
    workdir: str, data_source: str | None, images: int, folder: pathlib.Path
) -> CachedEvaluator:
    """The evaluator of a run, with what the folder knows already.

    Raises:
        ValueError: if nothing is held out, or for a folder of other weights or images.
    """
    from bignas_tf.commands.run_folder import load_run
    from bignas_tf.extract import weights_identity
    from bignas_tf.masked_evaluation import child_evaluator

    arguments = types.SimpleNamespace(workdir=pathlib.Path(workdir), data=data_source)
    trained, data = load_run(arguments)
    held_out = data.held_out
    require(held_out is not None, "workdir", "a run that holds images out", workdir)
    spread = np.linspace(0, len(held_out), min(images, len(held_out)), endpoint=False)
    held_out = held_out.take(spread.astype(int))
    identity = {
        "checkpoint": trained.path.name,
        "crc32": weights_identity(trained.supernet.weight_arrays()),
        "images": len(held_out),
        "calibration_images": len(data.calibration),
    }
    path = folder / IDENTITY
    if path.is_file():
        known = read_json(path)
        require(known == identity, "folder", f"one of {identity}", known)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, identity)
    evaluator = child_evaluator(trained.supernet, data.calibration, held_out)
    return CachedEvaluator(evaluator, trained.supernet.space, folder / POINTS)


def search(
    strategy: RoundStrategy, cached: CachedEvaluator, evaluations: int, step: Callable[[], object]
) -> list[dict[str, Any]]:
    """What the strategy evaluates, in order, each child as it is asked; `step` after each."""
    found: list[dict[str, Any]] = []
    while len(found) < evaluations and not strategy.finished:
        for genotype in strategy.ask(1):
            phase = strategy.phase
            (metrics,) = cached.score([genotype], phase)
            strategy.tell([genotype], [metrics])
            found.append({"genotype": genotype, "phase": phase, **metrics})
            step()
    return found


def gains(points: Sequence[Mapping[str, Any]], space: Space, least: float) -> list[float]:
    """Gain over the accuracy `least`, in percentage points, after every evaluation."""
    low, high = (measure(end, "mmacs") for end in (space.smallest(), space.biggest()))
    curve = hypervolume_curve(points, OBJECTIVES, {"accuracy": least, "mmacs": high})
    return [100 * volume / (high - low) for volume in curve]


def compare(
    makers: Mapping[str, Callable[[int], RoundStrategy]],
    cached: CachedEvaluator,
    evaluations: int,
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """A row per strategy, seed and evaluation."""
    from tqdm import tqdm

    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tqdm(total=len(makers) * len(seeds) * evaluations, unit="child") as bar:
        for name, make in makers.items():
            for seed in seeds:
                bar.set_description(f"{name} {seed}")
                found[name, seed] = search(make(seed), cached, evaluations, bar.update)
    least = min(point["accuracy"] for points in found.values() for point in points)
    rows = []
    for (name, seed), points in found.items():
        curve = gains(points, cached.space, least)
        for number, (point, gain) in enumerate(zip(points, curve, strict=True), start=1):
            costs = {key: point[key] for key in ("phase", "accuracy", "mmacs", "params_m")}
            row = {"strategy": name, "seed": seed, "evaluation": number, "gain": gain}
            rows.append({**row, **costs, **point["genotype"].as_dict()})
    return rows


def curves_of(rows: Sequence[Mapping[str, Any]], evaluations: int) -> dict[str, list[list[float]]]:
    """Gains by strategy and seed; a search that ended early stays where it was."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row["strategy"], {}).setdefault(row["seed"], []).append(row["gain"])
    return {
        name: [curve + curve[-1:] * (evaluations - len(curve)) for curve in by_seed.values()]
        for name, by_seed in found.items()
    }


def summary(curves: Mapping[str, list[list[float]]], evaluations: int) -> list[dict[str, Any]]:
    """Median and range over the seeds, a row per strategy and number of evaluations."""
    rows = []
    for name, own in curves.items():
        for number in sorted({max(1, round(share * evaluations)) for share in SHARES}):
            values = [curve[number - 1] for curve in own]
            about = {"strategy": name, "evaluations": number, "seeds": len(own)}
            found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
            rows.append({**about, **found})
    return rows


def write_csv(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows that have all the same columns."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main(argv: list[str]) -> None:
    """Searches, or goes on, and writes the tables and the plot."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    from hypervolume_plot import draw_curves  # beside this file

    folder, evaluations = pathlib.Path(_FOLDER.value), _EVALUATIONS.value
    cached = open_run(_WORKDIR.value, _DATA.value, _IMAGES.value, folder)
    budgets = budgets_of(cached.space, _BUDGET.value)
    if "coarse_to_fine" in _STRATEGIES.value:
        within = [g for g in skeletons(cached.space) if any(b.allows(g) for b in budgets)]
        least = f"at least {len(within)}, the coarse grid"
        require(evaluations >= len(within), "evaluations", least, evaluations)
    makers = searches(cached.space, budgets, evaluations, _FINE_CANDIDATES.value)
    chosen = {name: makers[name] for name in dict.fromkeys(_STRATEGIES.value)}
    for make in chosen.values():
        make(0)  # refuses what cannot be, before anything is evaluated
    rows = compare(chosen, cached, evaluations, range(_SEEDS.value))
    curves = curves_of(rows, evaluations)
    table = summary(curves, evaluations)
    write_csv(folder / "evaluations.csv", rows)
    write_csv(folder / "summary.csv", table)
    draw_curves(curves, folder / "hypervolume.png", "evaluations", "gain, points")
    for row in table:
        print(
            "{strategy:15} {evaluations:5}  {median:.3f}  ({low:.3f} to {high:.3f})".format(**row)
        )


if __name__ == "__main__":
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    app.run(main)
