import dataclasses
import importlib
import json
import re
import shlex

import pytest

import bignas_tf.cli as cli
from bignas_tf.spaces import get_space
from bignas_tf.training.optimizers import build_optimizer
from bignas_tf.training.recipe import Recipe, get_recipe, recipe_names
from bignas_tf.training.schedules import build_schedule

OTHER = Recipe(
    name="other",
    space="cifar",
    image_size=48,
    epochs=3,
    batch_size=7,
    optimizer={"kind": "rmsprop", "rho": 0.8},
    schedule={"kind": "cosine", "initial": 1, "warmup_epochs": 0.5},
    data="folder:somewhere",
    on_bad_image="skip",
    restrict={"resolution": [24, 32], "stage3_kernel": [5]},
    shortcut="identity",
    init_from="runs/other",
    augmentation={"flip": True, "cutout": 4},
    sandwich=False,
    random_children=1,
    teacher="runs/teacher",
    label_smoothing=0.2,
    weight_decay=1e-5,
    clip_norm=1.0,
    clip_value=0.5,
    checkpoint_minutes=5,
    regularize="all",
    distillation=False,
    zero_gamma=False,
    ema=0.99,
    precision="bfloat16",
    held_out=11,
    calibration_images=12,
    evaluate_every=2,
    checkpoint_every=5,
    checkpoints_kept=2,
    seed=9,
)


def test_the_recipe_of_these_tests_changes_every_default():
    for field in dataclasses.fields(Recipe):
        assert getattr(OTHER, field.name) != field.default, field.name


@pytest.mark.parametrize("recipe", [OTHER, *map(get_recipe, recipe_names())], ids=lambda r: r.name)
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_recipe_of_tuples_is_the_same_json_as_one_of_lists():
    given = OTHER.replace(restrict={"resolution": (24, 32), "stage3_kernel": (5,)})
    assert given.to_json() == OTHER.to_json()


def test_an_unknown_or_missing_key_is_refused_by_name():
    fields = OTHER.to_json()
    with pytest.raises(ValueError, match="unknown keys.*Received: epoch$"):
        Recipe.from_json({**fields, "epoch": 3})
    del fields["epochs"]
    with pytest.raises(ValueError, match="lacks required keys: epochs"):
        Recipe.from_json(fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 5),
        ("name", ""),
        ("space", "bignass"),
        ("space", ["cifar"]),
        ("data", 5),
        ("on_bad_image", "ignore"),
        ("image_size", 0),
        ("epochs", "abc"),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size", -64),
        ("optimizer", "sgd"),
        ("optimizer", {"kind": "sgd", "momentum": "0.9"}),
        ("schedule", None),
        ("schedule", {"kind": "cosine", "initial": [0.1]}),
        ("augmentation", 5),
        ("restrict", ["resolution"]),
        ("init_from", 3),
        ("teacher", ""),
        ("sandwich", 1),
        ("shortcut", "pooling"),
        ("random_children", -1),
        ("label_smoothing", 1),
        ("weight_decay", -1e-4),
        ("weight_decay", "1e-4x"),
        ("weight_decay", float("nan")),
        ("regularize", "none"),
        ("distillation", "no"),
        ("distillation", 1),
        ("zero_gamma", "off"),
        ("held_out", -1),
        ("held_out", 1.5),
        ("calibration_images", 0),
        ("evaluate_every", None),
        ("checkpoint_every", 0),
        ("checkpoints_kept", 0),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value):
    with pytest.raises(ValueError) as caught:
        OTHER.replace(**{field: value})
    assert re.match(rf"`{field}\b.*` must be .+\. Received: .", str(caught.value))


@pytest.mark.parametrize("fields", [{"shift": -1}, {"flips": True}, {"fill": "edge"}])
def test_a_bad_augmentation_is_refused_by_name(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        OTHER.replace(augmentation=fields)


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_can_be_built(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert get_space(recipe.space).biggest()["resolution"] <= 2 * recipe.image_size
    schedule = build_schedule(recipe.schedule, 10, recipe.epochs)
    optimizer = build_optimizer(recipe.optimizer, schedule)
    for key in set(recipe.optimizer) - {"kind"}:
        assert getattr(optimizer, key) == recipe.optimizer[key]
    # The constant ending: the rate of the last steps is its least.
    assert float(schedule(10 * recipe.epochs)) == pytest.approx(0.05 * recipe.schedule["initial"])


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_says_which_command_runs_it(name):
    docstring = importlib.import_module(f"bignas_tf.recipes.{name}").__doc__
    (line,) = re.findall(r"^bignas train .*$", docstring, re.MULTILINE)
    arguments = cli._parse(shlex.split(line))
    assert (arguments.command, arguments.recipe) == ("train", name)
    # A recipe without a source of its own shows where to name one.
    assert (arguments.data is None) == (get_recipe(name).data is not None)


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="`recipe` must be one of cifar10, digits, imagenet, photos.*'digit'"
    ):
        get_recipe("digit")


@pytest.mark.parametrize("restrict", [{"depth": [1]}, {"resolution": [20]}, {"stage3_kernel": []}])
def test_choices_that_a_space_does_not_have_are_refused_with_the_recipe(restrict):
    with pytest.raises(ValueError, match=r"space 'cifar' .*Received: "):
        OTHER.replace(restrict=restrict)


def test_a_recipe_builds_its_part_of_the_space_with_its_shortcuts():
    space = OTHER.build_space(classes=3)
    assert (space.classes, space.shortcut, space.resolutions) == (3, "identity", (24, 32))
    assert OTHER.replace(restrict={}, shortcut=None).build_space() == get_space("cifar")
