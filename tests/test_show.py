"""`bignas show`: what it counts, and what it refuses."""

import argparse
import itertools
import json
import subprocess
import sys

import pytest

from bignas_tf.commands import show
from bignas_tf.commands.train import overrides
from bignas_tf.cost import count
from bignas_tf.spaces import get_space
from bignas_tf.training.recipe import get_recipe, recipe_names
from bignas_tf.zoo import get_spec

SPACE = get_space("digits")
RECIPES = {name: get_recipe(name).to_json() for name in recipe_names()}


@pytest.fixture
def shown(capsys):
    def call(*arguments):
        parser = argparse.ArgumentParser()
        show.add_arguments(parser)
        show.main(parser.parse_args(list(arguments)))
        return capsys.readouterr().out

    return call


def totals(text):
    """MACs in millions and parameters of the last line."""
    name, macs, params, _ = text.splitlines()[-1].split()
    assert name == "total"
    return float(macs), int(params)


def expected(spec):
    counted = count(spec)
    return round(counted.mmacs, 3), counted.params


def test_a_genotype_of_a_space_is_counted(shown):
    assert totals(shown("--space=digits", "smallest")) == expected(SPACE.smallest().spec())
    genotype = SPACE.sample(1, seed=2)[0]
    text = shown("--space=digits", json.dumps(genotype.as_dict()))
    assert totals(text) == expected(genotype.spec())
    assert all(block.name in text for block in genotype.spec().blocks)


def test_the_file_of_a_genotype_is_counted_in_its_space(shown, tmp_path):
    genotype = SPACE.sample(1, seed=3)[0]
    path = tmp_path / "genotype.json"
    for content in (genotype.as_dict(), {"name": "s", "genotype": genotype.as_dict()}):
        path.write_text(json.dumps(content))
        assert totals(shown("--space=digits", str(path))) == expected(genotype.spec())
    path.write_text(json.dumps(genotype.as_dict()))
    with pytest.raises(ValueError, match="`network` must be .* or given with `space`. Received: "):
        shown(str(path))
    path.write_text("[8]")
    for space in ([], ["--space=digits"]):
        with pytest.raises(ValueError, match="`network` must be the file of a JSON object. Rec"):
            shown(*space, str(path))


def test_the_json_of_a_child_and_of_a_network_alone_are_counted(shown, tmp_path):
    spec = SPACE.biggest().spec()
    for name, content in (("child", {"name": "s", "spec": spec.to_json()}), ("s", spec.to_json())):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        assert totals(shown(str(path))) == expected(spec)


def test_a_model_of_the_zoo_is_counted_at_another_resolution(shown):
    spec = get_spec("bignasmodel_s")
    assert totals(shown("bignasmodel_s")) == expected(spec)
    larger = spec.with_input_shape((224, 224, 3))
    assert totals(shown("bignasmodel_s", "--resolution=224")) == expected(larger)


def test_counting_a_model_of_the_zoo_loads_no_framework():
    code = (
        "import sys; from bignas_tf import cli; "
        "arguments = cli._parse(['bignas', 'show', 'bignasmodel_m']); arguments.main(arguments); "
        "print({'tensorflow', 'keras', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout.splitlines()[-1], done.stderr) == ("set()", "")


def test_without_a_network_spaces_and_recipes_are_listed(shown):
    text = shown()
    assert "digits" in text and "bignas train --recipe" in text
    smallest = count(SPACE.smallest().spec())
    assert f"smallest: {smallest.mmacs:.2f} MMACs" in shown("--space=digits")


@pytest.mark.parametrize("name", recipe_names())
def test_the_fields_of_a_recipe_are_shown_as_training_sets_them(shown, name):
    head, *lines = shown(f"--recipe={name}").splitlines()
    assert head.startswith(f"{name} (")
    assert overrides([line.strip() for line in lines]) | {"name": name} == RECIPES[name]


def test_a_recipe_is_shown_alone_and_by_its_name(shown):
    with pytest.raises(ValueError, match="`recipe` must be one of cifar10, .*Received: 'photo'"):
        shown("--recipe=photo")
    with pytest.raises(ValueError, match="`space` must be left out with `recipe`. Rec.*'cifar'"):
        shown("--recipe=photos", "--space=cifar")
    with pytest.raises(ValueError, match="`network` must be left out with `recipe`. .*'biggest'"):
        shown("--recipe=photos", "biggest")


def test_what_is_no_network_is_refused(shown):
    with pytest.raises(ValueError, match=r"`network` must be .*bignasmodel_s.*Received: 'resnet'"):
        shown("resnet")
    with pytest.raises(ValueError, match='`genotype` must be "smallest", "biggest" or a JSON'):
        shown("--space=digits", "bignasmodel_s")
    for space, (option, value) in itertools.product(
        ([], ["--space=digits"]), (("resolution", "32"), ("latency_table", "t.json"))
    ):
        message = f"`network` must be given with `{option}`. Received: only {value}$"
        with pytest.raises(ValueError, match=message):
            shown(*space, f"--{option}={value}")
