"""Shows recipes and spaces, or counts a network: MACs, parameters, activation memory.

Examples:
  bignas show
  bignas show --space=cifar
  bignas show --space=bignas --genotype=smallest --resolution=224
  bignas show --model=children/s.json
  bignas show --model=bignasmodel_m
  bignas show --space=cifar --genotype=biggest --latency_table=cifar.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--space", help="a space; with --genotype one network of it")
    parser.add_argument("--genotype", help='"smallest", "biggest" or a JSON object')
    parser.add_argument("--model", help="a zoo name, or the JSON of a child")
    parser.add_argument("--resolution", type=int, help="pixels, instead of the network's own")
    parser.add_argument(
        "--latency_table", help="JSON of `bignas latency-table`: adds milliseconds of each block"
    )


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf import cost
    from bignas_tf.spaces import get_space

    if arguments.latency_table and not (arguments.model or arguments.genotype):
        raise ValueError(
            "`genotype` or `model` must be given with `latency_table`. "
            f"Received: only {arguments.latency_table}"
        )
    if arguments.model:
        _show(_model_spec(arguments.model), arguments)
        return
    if arguments.space is None and arguments.genotype:
        raise ValueError("`space` must be given with `genotype`. Received: None")
    if arguments.resolution and not arguments.genotype:
        raise ValueError(
            "`genotype` or `model` must be given with `resolution`. "
            f"Received: only {arguments.resolution}"
        )
    if arguments.space is None:
        _list()
        return
    space = get_space(arguments.space)
    if arguments.genotype:
        from bignas_tf.commands.extract import parse_genotype

        genotype = parse_genotype(arguments.genotype, space)
        _show(genotype.spec(), arguments)
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
    print("recipes (bignas train --recipe=NAME):")
    for name in recipe_names():
        recipe = get_recipe(name)
        print(
            f"  {name}: space {recipe.space}, {recipe.epochs} epochs, batch {recipe.batch_size}, "
            f"data {recipe.data or '--data'}"
        )


def _model_spec(model: str) -> Any:
    from bignas_tf.files import read_json
    from bignas_tf.spec import NetworkSpec

    path = Path(model)
    if path.suffix == ".json":
        content = read_json(path)
        described = isinstance(content, dict) and "spec" in content
        return NetworkSpec.from_json(content["spec"] if described else content)
    from bignas_tf.checks import require
    from bignas_tf.zoo import get_spec, list_models

    allowed = f"the JSON of a child, or one of {', '.join(list_models())}"
    require(model in list_models(), "model", allowed, model)
    return get_spec(model)
