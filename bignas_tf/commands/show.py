"""Shows recipes and spaces, or counts a network: MACs, parameters, activation memory.

NETWORK is a model of the zoo (docs/zoo.md), the JSON of a child (children/NAME.json), of a
selection (select/selected/NAME.json) or of a network alone, or, with --space, "smallest",
"biggest" or a genotype: a JSON object with a value for every gene, or its file.

Examples:
  bignas show
  bignas show --recipe=photos
  bignas show --space=cifar
  bignas show --space=bignas smallest --resolution=224
  bignas show runs/cifar10/select/selected/s.json
  bignas show bignasmodel_m
  bignas show --space=cifar biggest --latency_table=cifar.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("network", nargs="?", metavar="NETWORK", help="what to count")
    parser.add_argument(
        "--recipe", help="a recipe's fields, as --set of `bignas train` changes them (alone)"
    )
    parser.add_argument("--space", help="a space; with NETWORK one network of it")
    parser.add_argument("--resolution", type=int, help="pixels, instead of the network's own")
    parser.add_argument(
        "--latency_table", help="JSON of `bignas latency-table`: adds milliseconds of each block"
    )


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf import cost
    from bignas_tf.spaces import get_space

    for option in ("latency_table", "resolution"):
        if getattr(arguments, option) and not arguments.network:
            raise ValueError(
                f"`network` must be given with `{option}`. "
                f"Received: only {getattr(arguments, option)}"
            )
    if arguments.recipe is not None:
        _show_recipe(arguments)
        return
    if arguments.space is None:
        if arguments.network:
            _show(_spec(arguments.network), arguments)
        else:
            _list()
        return
    space = get_space(arguments.space)
    if arguments.network:
        _show(_genotype(arguments.network, space).spec(), arguments)
        return
    print(f"{space.name}: {space.size():.4g} networks, {space.classes} classes")
    for gene in space.genes:
        if len(gene.choices) > 1:
            print(f"  {gene.name}: {', '.join(map(str, gene.choices))}")
    for name in ("smallest", "biggest"):
        genotype = getattr(space, name)()
        counted = cost.count(genotype.spec())
        print(
            f"  {name}: {counted.mmacs:.2f} MMACs, {counted.params_m:.3f} M parameters at "
            f"{genotype['resolution']} px"
        )


def _show_recipe(arguments: Any) -> None:
    """Prints a recipe's fields, a line each."""
    from bignas_tf.checks import require
    from bignas_tf.training.recipe import get_recipe

    for option in ("network", "space"):
        given = getattr(arguments, option)
        require(given is None, option, "left out with `recipe`", given)
    fields = get_recipe(arguments.recipe).to_json()
    del fields["name"]
    print(f"{arguments.recipe} (bignas train --recipe={arguments.recipe} --set=FIELD=JSON):")
    for name, value in fields.items():
        print(f"  {name}={json.dumps(value)}")


def _show(spec: Any, arguments: Any) -> None:
    """Prints a network's blocks."""
    from bignas_tf import cost

    profile = cost.profile(spec, arguments.resolution)
    if not arguments.latency_table:
        print(profile.table())
        return
    from bignas_tf.latency_table import LatencyTable, blocks_of
    from bignas_tf.ops import INPUT

    table = LatencyTable.read(arguments.latency_table)
    spec = spec.with_input_shape(profile.input_shape)
    predicted = table.missing(blocks_of(spec).values())
    marked = {block.key for block in predicted}
    times = table.times(spec)
    column = {
        name: f"{times[name]:.4f}{'*' if block.key in marked else ' '}"
        for name, block in blocks_of(spec).items()
    }
    column |= {INPUT: f"{table.offset_ms:.4f} ", "total": f"{table.profile(spec):.4f} "}
    print(profile.table({"ms ": column}))
    print("ms: of the whole head at its first line, at the input of what comes with no block")
    if predicted:
        print(f"*: not in {arguments.latency_table}, predicted from other blocks")


def _list() -> None:
    from bignas_tf.spaces import SPACES
    from bignas_tf.training.recipe import get_recipe, recipe_names

    print("spaces (bignas show --space=NAME):", ", ".join(SPACES))
    print("recipes (bignas train --recipe=NAME; bignas show --recipe=NAME):")
    for name in recipe_names():
        recipe = get_recipe(name)
        print(
            f"  {name}: space {recipe.space}, {recipe.epochs} epochs, batch {recipe.batch_size}, "
            f"data {recipe.data or '--data'}"
        )


def _genotype(network: str, space: Any) -> Any:
    from bignas_tf.commands.extract import parse_genotype

    path = Path(network)
    if path.suffix != ".json":
        return parse_genotype(network, space)
    content = _object(path)
    return space.genotype(content.get("genotype", content))


def _spec(network: str) -> Any:
    from bignas_tf.checks import require
    from bignas_tf.spec import NetworkSpec

    path = Path(network)
    if path.suffix == ".json":
        content = _object(path)
        ok = "spec" in content or "blocks" in content
        require(ok, "network", "the JSON of a child or a network, or given with `space`", network)
        return NetworkSpec.from_json(content.get("spec", content))
    from bignas_tf.zoo import get_spec, list_models

    names = list_models()
    allowed = f"the JSON of a child, with `space` a genotype, or one of {', '.join(names)}"
    require(network in names, "network", allowed, network)
    return get_spec(network)


def _object(path: Path) -> dict[str, Any]:
    from bignas_tf.checks import require
    from bignas_tf.files import read_json

    content = read_json(path)
    require(isinstance(content, dict), "network", "the file of a JSON object", str(path))
    return content
