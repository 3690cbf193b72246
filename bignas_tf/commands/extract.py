"""Cuts children out of a supernet and calibrates their batch norm.

Takes the selected children of a run, or one genotype given by hand. Writes
children/NAME.keras, which loads without this package, and children/NAME.json to the run's
folder. From a supernet of the zoo it takes the best child of its search's front under a budget,
whose statistics come with it, or, with --data to calibrate on, any genotype, and writes both
files to --output.

Examples:
  bignas extract --workdir=runs/cifar10
  bignas extract --supernet=cifar10 --budget=mmacs:4
  bignas extract --workdir=runs/cifar10 --genotype=smallest --name=tiny
  bignas extract --workdir=runs/cifar10 --genotype='{"resolution": 32, ...}' --name=mine
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from bignas_tf.backend import add_backend


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", type=Path, help="folder of the run")
    parser.add_argument("--supernet", help="a supernet of the zoo instead, such as cifar10")
    parser.add_argument(
        "--data", help="source, if it has moved since the training or with --supernet"
    )
    parser.add_argument("--budget", help="with --supernet: such as mmacs:4 or params_m:0.15")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder to write to, with --supernet (default: children)",
    )
    parser.add_argument(
        "--genotype", help='"smallest", "biggest", or a JSON object with a value for every gene'
    )
    parser.add_argument("--name", help="of the child given by --genotype")
    parser.add_argument(
        "--method",
        default="sequential",
        help="of calibration: sequential (default) or batch_average",
    )
    add_backend(parser)


def parse_genotype(text: str, space: Any) -> Any:
    """Reads --genotype.

    Raises:
        ValueError: for bad JSON or a genotype outside the space.
    """
    if text in ("smallest", "biggest"):
        return getattr(space, text)()
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(
            f'`genotype` must be "smallest", "biggest" or a JSON object. Received: {text}'
        )
    return space.genotype(values)


def describe(trained: Any, genotype: Any, calibration: dict[str, Any]) -> dict[str, Any]:
    """The JSON beside an extracted child."""
    from bignas_tf import __version__, cost
    from bignas_tf.extract import weights_identity

    spec = genotype.spec()
    counted = cost.count(spec)
    return {
        "space": genotype.space.name,
        "genotype": genotype.as_dict(),
        "spec": spec.to_json(),
        "resolution": genotype["resolution"],
        "macs": counted.macs,
        "params": counted.params,
        "peak_activation_bytes": counted.peak_activation_bytes,
        "input_range": [-1.0, 1.0],
        "image_size": trained.recipe.image_size,
        "interpolation": "bicubic, antialias",
        "scores": "logits",
        "labels": list(trained.classes),
        "calibration": calibration,
        "checkpoint": trained.path.name,
        "weights": weights_identity(trained.supernet.weight_arrays()),
        "step": trained.step,
        "recipe": trained.recipe.name,
        "bignas_tf": __version__,
    }


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.calibration import METHODS
    from bignas_tf.checks import require, require_choice
    from bignas_tf.commands.run_folder import load_run, read_selected, recorded
    from bignas_tf.search.results import is_unfinished

    require_choice("method", arguments.method, METHODS)
    if bool(arguments.workdir) == bool(arguments.supernet):
        raise ValueError(
            "Either `workdir` or `supernet` must be given. "
            f"Received: {arguments.workdir}, {arguments.supernet}"
        )
    if bool(arguments.genotype) != bool(arguments.name):
        raise ValueError(
            "`genotype` and `name` must be given together. "
            f"Received: {arguments.genotype!r}, {arguments.name!r}"
        )
    name = arguments.name
    require(not name or Path(name).name == name, "name", "that of a file, without a folder", name)
    if arguments.supernet:
        _extract_from_zoo(arguments)
        return
    for option in ("budget", "output"):
        given = getattr(arguments, option)
        require(given is None, option, "left out without `supernet`", str(given))
    trained, data = load_run(arguments)
    space = trained.supernet.space
    if arguments.genotype:
        wanted = {name: parse_genotype(arguments.genotype, space)}
    else:
        selected = read_selected(arguments.workdir)
        if is_unfinished(arguments.workdir / "select"):
            print("The search has not finished: these are its best children so far")
        wanted = {entry["name"]: space.genotype(entry["genotype"]) for entry in selected}
    folder: Path = arguments.workdir / "children"
    folder.mkdir(exist_ok=True)
    with recorded(arguments, {}, trained):
        for name, genotype in wanted.items():
            _extract(trained, data.calibration, genotype, arguments.method, folder / name)


def _extract(trained: Any, split: Any, genotype: Any, method: str, stem: Path) -> None:
    """Writes one calibrated child and its JSON."""
    from bignas_tf.calibration import calibrate
    from bignas_tf.evaluation import prepared
    from bignas_tf.extract import extract

    child = extract(trained.supernet, genotype, name=stem.name)
    images = prepared(split, genotype["resolution"])
    calibrate(child, images, method=method)
    description = describe(trained, genotype, {"method": method, "images": len(images)})
    path = stem.with_name(f"{stem.name}.keras")
    _save(child, description, path)
    print(f"{path}: {description['macs'] / 1e6:.3f} MMACs, {genotype['resolution']} px")


def _extract_from_zoo(arguments: Any) -> None:
    """Writes one child of a supernet of the zoo."""
    from bignas_tf.calibration import METHODS
    from bignas_tf.checks import require
    from bignas_tf.training.state import load_trained
    from bignas_tf.zoo.trained import supernet_file

    if bool(arguments.budget) == bool(arguments.genotype):
        raise ValueError(
            "Either `budget` or `genotype` must be given with `supernet`. "
            f"Received: {arguments.budget!r}, {arguments.genotype!r}"
        )
    if arguments.genotype:
        needed = "given with `genotype`: its batch norm is calibrated on training images"
        require(arguments.data is not None, "data", needed, None)
    else:
        published = "left out with `budget`: the statistics of these children are published"
        require(arguments.data is None, "data", published, arguments.data)
        require(arguments.method == METHODS[0], "method", published, arguments.method)
    trained = load_trained(supernet_file(arguments.supernet), "supernet")
    folder: Path = arguments.output or Path("children")
    if arguments.genotype:
        from bignas_tf.training.run_data import load_run_data

        genotype = parse_genotype(arguments.genotype, trained.supernet.space)
        data = load_run_data(trained.recipe, arguments.data)
        same = f"of the supernet's classes, {', '.join(trained.classes)}"
        require(data.source.classes == trained.classes, "data", same, list(data.source.classes))
        folder.mkdir(parents=True, exist_ok=True)
        _extract(trained, data.calibration, genotype, arguments.method, folder / arguments.name)
        return
    _extract_from_front(arguments, trained, folder)


def _extract_from_front(arguments: Any, trained: Any, folder: Path) -> None:
    """Writes the best child under each budget, with the statistics that were published."""
    from bignas_tf.checks import require
    from bignas_tf.extract import assign_weights, extract
    from bignas_tf.search.budget import check_feasible, parse_budgets
    from bignas_tf.search.evaluator import loss_of
    from bignas_tf.search.metrics import LATENCY
    from bignas_tf.training.checkpoints import read_checkpoint
    from bignas_tf.zoo.trained import front_file

    space = trained.supernet.space
    budgets = parse_budgets(arguments.budget)
    timed = any(part.metric == LATENCY for budget in budgets for part in budget.parts)
    counted = "of MACs, parameters or size: no latency table is at hand"
    require(not timed, "budget", counted, arguments.budget)
    arrays, front = read_checkpoint(front_file(arguments.supernet))
    points = [(space.genotype(point["genotype"]), point) for point in front["points"]]
    best = {}
    for budget in budgets:
        check_feasible(budget, space)
        allowed = [i for i, (genotype, _) in enumerate(points) if budget.allows(genotype)]
        front_meets = "met by a child of the front; --genotype with --data cuts any other"
        require(len(allowed) > 0, "budget", front_meets, arguments.budget)
        # As a search breaks ties.
        best[budget.name] = max(
            allowed, key=lambda i: (points[i][1]["accuracy"], -loss_of(points[i][1]))
        )
    folder.mkdir(parents=True, exist_ok=True)
    for budget_name, position in best.items():
        genotype, point = points[position]
        path = folder / f"{arguments.supernet}_{budget_name}.keras"
        child = extract(trained.supernet, genotype, name=path.stem)
        prefix = f"{position}/"
        statistics = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        assign_weights(child, trained.supernet.child_weights(genotype) | statistics)
        calibration = {"method": "sequential", "images": trained.recipe.calibration_images}
        description = describe(trained, genotype, calibration)
        _save(child, description, path)
        print(
            f"{path}: {description['macs'] / 1e6:.3f} MMACs, {genotype['resolution']} px, "
            f"{point['accuracy']:.2%} of the {point['split']} images"
        )


def _save(child: Any, description: dict[str, Any], path: Path) -> None:
    """Writes the child and its JSON, or neither."""
    from bignas_tf.files import staged

    with (
        staged(path, path.with_suffix(".json")) as (model, described),
        # Keras wants a name in .keras; in a folder of its own nobody takes it for a child.
        tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=path.parent) as folder,
    ):
        child.save(Path(folder) / path.name)
        os.replace(Path(folder) / path.name, model)
        described.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
