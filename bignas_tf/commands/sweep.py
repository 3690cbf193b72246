"""Trains and measures seeds and variants of recipes, one after the other, into one CSV.

--file is JSON. `recipe` and `variants` must be there; all else may be left out:
  {
    "recipe": "cifar10",
    "data": "folder:/data/cifar10",
    "set": {"epochs": 20},
    "variants": {"full": {}, "plain": {"distillation": false}, "other": {"recipe": "digits"}},
    "seeds": [0, 1, 2],
    "children": {"middle": {"resolution": 28, "stem_width": 16, ...}},
    "select": {"budget": "mmacs:3.4,5,7,10", "names": "s,m,l,xl"}
  }
`set` are fields of the recipe as those of `bignas train`, for all variants; a variant adds
its own and may name another `recipe` or other `data`. `children` are genotypes to measure in
every run, `select` has the options of `bignas select` but --device, the workers' and --backend.

All variants of the first seed come first. Each run is a folder like one of `bignas train`; after
it the biggest, the smallest, the given and the selected children are measured on the test
images, calibrated and with the biggest child's statistics instead. Then results.csv in --workdir
gets their rows (train_seconds: of all parts of a run, compiling included) and the run's folder
predictions.npz, the top class of every test image. Means over seeds, and differences from the
first variant seed by seed, are printed with their 95 % intervals. Runs that are there are not
made again, so that variants and seeds may be added. Ctrl-C saves and stops; the same command
resumes.

Example:
  bignas sweep --file=ablations.json --workdir=runs/ablations
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bignas_tf.checks import from_json, is_int, require
from bignas_tf.commands.train import add_loop_options, loop_options
from bignas_tf.termination import terminated_as_interrupted


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """The file as it is written; see above."""

    recipe: str
    variants: Mapping[str, Any]
    data: str | None = None
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    children: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    select: Mapping[str, Any] | None = None

    def __post_init__(self):
        ok = isinstance(self.variants, Mapping) and len(self.variants) > 0
        require(ok, "variants", "an object of at least one name", self.variants)
        for name, fields in self.variants.items():
            ok = re.fullmatch(r"[A-Za-z0-9._-]+", name) is not None
            require(ok, "variants", "named with letters, digits, '.', '_' and '-'", name)
            require(isinstance(fields, Mapping), f"variants['{name}']", "an object", fields)
        require(isinstance(self.set, Mapping), "set", "an object of fields of the recipe", self.set)
        require(isinstance(self.children, Mapping), "children", "an object", self.children)
        for name, genotype in self.children.items():
            ok = isinstance(genotype, Mapping)
            require(ok, f"children['{name}']", "an object of values by gene", genotype)
        seeds = self.seeds
        ok = isinstance(seeds, tuple) and len(seeds) > 0 and all(is_int(seed, 0) for seed in seeds)
        ok = ok and len(set(seeds)) == len(seeds)
        require(ok, "seeds", "a list of different integers of at least 0", seeds)
        ok = self.data is None or isinstance(self.data, str)
        require(ok, "data", "a source, such as 'folder:PATH'", self.data)


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--file", required=True, type=Path, help="what to run, as JSON")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the sweep")
    parser.add_argument(
        "--data", help="source instead of the file's: digits, folder:PATH or tfds:NAME"
    )
    add_loop_options(parser)


def read_plan(path: Path, data: str | None = None) -> Any:
    """Reads a sweep's file.

    Args:
        path: the file.
        data: source instead of its `data`; a variant's own stays.

    Returns:
        The `SweepPlan`, every recipe of it built.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no JSON, has unknown keys, or values that no recipe may have.
    """
    from bignas_tf.search.search_options import SearchOptions
    from bignas_tf.sweep.plan import PlannedRun, SweepPlan
    from bignas_tf.sweep.runs import TAKEN

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_twins)
    except ValueError as error:
        raise ValueError(f"{path} must be JSON. Received: {error}") from error
    file = from_json(SweepFile, content, str(path))
    select = None
    if file.select is not None:
        select = SearchOptions.given(file.select)
        shared = "left out in a sweep, whose runs share one `latency_table`"
        require(select.device is None, "device", shared, select.device)
        names = select.children()
        others = (*TAKEN, *file.children)
        taken = f"none of {', '.join(others)}, which are taken"
        require(not {*names} & {*others}, "names", taken, ",".join(names))
    taken = f"named otherwise than {', '.join(TAKEN)}, which are taken"
    require(not {*file.children} & {*TAKEN}, "children", taken, list(file.children))
    variants = {name: _variant(file, name, data) for name in file.variants}
    runs = []
    for seed in file.seeds:
        for name, (recipe, overrides) in variants.items():
            runs.append(PlannedRun(name, seed, recipe.replace(seed=seed), overrides))
    return SweepPlan(tuple(runs), select, dict(file.children))


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which the last of two fields of a name would win unnoticed."""
    names = [name for name, _ in pairs]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(f"{', '.join(twins)} more than once")
    return dict(pairs)


def _variant(file: SweepFile, name: str, data: str | None) -> tuple[Any, dict[str, Any]]:
    """The recipe of a variant, and the fields in which it differs from the recipe's own."""
    from bignas_tf.training.recipe import Recipe, get_recipe

    own = dict(file.variants[name])
    fields = {field.name for field in dataclasses.fields(Recipe)} - {"seed"}
    _require_keys("set", file.set, fields - {"data"})  # the file has a place of its own for it
    _require_keys(f"variants['{name}']", own, fields | {"recipe"})
    base = own.pop("recipe", file.recipe)
    overrides = {**file.set, **own}
    source = data or file.data
    chosen = {"data": source} if source else {}
    try:
        return get_recipe(base).replace(**chosen | overrides), overrides
    except ValueError as error:
        raise ValueError(f"Variant '{name}': {error}") from error


def _require_keys(argument: str, given: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = sorted(given.keys() - allowed)
    require(not unknown, argument, f"of keys among {', '.join(sorted(allowed))}", unknown)


def main(arguments: Any) -> int:
    """Runs the command."""
    from bignas_tf.sweep.results import RESULTS, Results, summary
    from bignas_tf.sweep.runs import run_sweep

    ok = arguments.strategy != "multi_worker"
    require(ok, "strategy", "of one worker for a sweep", arguments.strategy)
    options = loop_options(arguments)
    plan = read_plan(arguments.file, arguments.data)
    command = ["bignas", *sys.argv[1:]]
    try:
        with terminated_as_interrupted():  # a training run does it for itself
            done = run_sweep(plan, arguments.workdir, command=command, loop_options=options)
    except KeyboardInterrupt:
        done = False
    path = arguments.workdir / RESULTS
    if not done:
        print("stopped; the same command resumes")
        return 130
    print("\n".join(summary(Results(path, [run.name for run in plan.runs]).planned())))
    print(f"written to {path}")
    return 0
