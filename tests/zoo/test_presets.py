"""The zoo's data: every preset against its space, its file and what was published."""

import dataclasses
import hashlib
import json
import pathlib
import re

import pytest
from networks import fairnas

from bignas_tf import zoo
from bignas_tf.cost import count
from bignas_tf.spaces import get_space
from bignas_tf.spec import NetworkSpec
from bignas_tf.zoo.trained import FILES

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
NETWORKS = json.loads((FIXTURES / "published_networks.json").read_text(encoding="utf-8"))
RECOUNTED = {f"attentivenas_{n['name'].lower()}": n for n in NETWORKS["attentivenas"]["networks"]}
RECOUNTED["alphanet_a5_small"] = RECOUNTED.pop("attentivenas_a5_small")
RECOUNTED |= {f"fairnas_{n['name'].lower()}": n for n in NETWORKS["fairnas"]["networks"]}

PUBLISHED = {  # MMACs, million parameters, top-1 % as their authors give them
    "bignasmodel_s": (242, 4.5, 76.5),
    "bignasmodel_m": (418, 5.5, 78.9),
    "bignasmodel_l": (586, 6.4, 79.5),
    "bignasmodel_xl": (1040, 9.5, 80.9),
    "attentivenas_a0": (203, None, 77.3),
    "attentivenas_a1": (279, None, 78.4),
    "attentivenas_a2": (317, None, 78.8),
    "attentivenas_a3": (357, None, 79.1),
    "attentivenas_a4": (444, None, 79.8),
    "attentivenas_a5": (491, None, 80.1),
    "alphanet_a5_small": (491, None, 80.29),
    "attentivenas_a6": (709, None, 80.7),
    "fairnas_a": (388, None, 75.34),
    "fairnas_b": (345, None, 75.10),
    "fairnas_c": (321, None, 74.69),
}
BUDGETS = {  # MMACs at most
    "bignascifar_s": 3.4,
    "bignascifar_m": 5,
    "bignascifar_l": 7,
    "bignascifar_xl": 10,
}
KEYS = (
    "family spec space genotype resolution image_size crop interpolation labels input_range macs "
    "params ours published origin weights accuracy"
).split()
every_preset = pytest.mark.parametrize("name", zoo.list_models())


def test_every_preset_is_in_one_of_the_tables_here():
    assert set(zoo.list_models()) == {*PUBLISHED, *BUDGETS}


@every_preset
def test_a_preset_says_what_its_network_costs_and_how_it_sees_images(name):
    preset = zoo.get_preset(name)
    spec, cost = zoo.get_spec(name), count(zoo.get_spec(name))
    assert list(preset) == KEYS
    assert NetworkSpec.from_json(preset["spec"]) == spec
    assert (preset["macs"], preset["params"]) == (cost.macs, cost.params)
    assert spec.input_shape == (preset["resolution"], preset["resolution"], 3)
    assert (preset["input_range"], preset["crop"]) == ([0, 255], 1)
    assert preset["interpolation"] == "bicubic, antialias"
    assert preset["ours"] is name.startswith("bignas")
    assert preset["origin"].startswith("The authors' network: ") is not preset["ours"]


@every_preset
def test_a_network_is_that_of_its_genotype_or_in_no_space(name):
    preset = zoo.get_preset(name)
    if preset["family"] == "fairnas":
        assert preset["space"] is preset["genotype"] is None
    else:
        space = get_space(preset["space"])
        assert space.genotype(preset["genotype"]).spec() == zoo.get_spec(name)


@every_preset
def test_weights_are_the_file_of_their_hash_and_accuracy_has_its_source(name):
    preset = zoo.get_preset(name)
    if name not in BUDGETS:
        unknown = (preset["weights"], preset["accuracy"], preset["labels"], preset["image_size"])
        assert unknown == (None, None, None, None)
        return
    entry, accuracy = preset["weights"]["cifar10"], preset["accuracy"]["cifar10"]
    assert hashlib.sha256((FILES / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    low, high = accuracy["top1_interval"]
    assert low < accuracy["top1"] < high
    # XL is nearly the biggest child, whose statistics these are.
    bound = accuracy["top1"] if name == "bignascifar_xl" else low
    assert accuracy["top1_uncalibrated"] < bound
    assert "ours: `bignas evaluate`" in accuracy["source"]
    assert len(preset["labels"]) == zoo.get_spec(name).classes == 10
    assert (preset["image_size"], preset["published"]) == (32, None)


@pytest.mark.parametrize("name", BUDGETS)
def test_children_of_cifar_are_within_their_budget(name):
    assert zoo.get_preset(name)["macs"] / 1e6 <= BUDGETS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_cost_is_the_published_one(name):
    mmacs, params_m, top1 = PUBLISHED[name]
    preset, cost = zoo.get_preset(name), count(zoo.get_spec(name))
    published = preset["published"]
    assert [published[key] for key in ("mmacs", "params_m", "top1_percent")] == [*PUBLISHED[name]]
    assert re.search(
        r"(CVPR|ICML|ICCV) 2021, arXiv \d{4}.\d{5}; github|ECCV 2020", published["source"]
    )
    if preset["ours"]:
        assert abs(cost.mmacs / mmacs - 1) <= 0.01
        assert abs(cost.params_m / params_m - 1) <= 0.01
    else:
        assert abs(cost.mmacs - mmacs) < 1


@pytest.mark.parametrize("name", sorted(set(RECOUNTED) - {"attentivenas_min", "attentivenas_max"}))
def test_networks_of_others_have_their_recounted_cost_and_shape(name):
    network, spec = RECOUNTED[name], zoo.get_spec(name)
    cost = count(spec)
    assert cost.mmacs == pytest.approx(network["mmacs"], abs=0.01)
    assert cost.params_m == pytest.approx(network["params_m"], abs=0.001)
    if name.startswith("fairnas"):
        assert spec == fairnas(network["layers"])
    else:
        genotype = zoo.get_preset(name)["genotype"]
        widths = [genotype["stem_width"], *(genotype[f"stage{i}_width"] for i in range(1, 8))]
        assert [*widths, genotype["head_width"]] == network["width"]


def test_the_presets_are_listed_from_small_to_big_by_family_and_by_weights():
    everything = zoo.list_models()
    costs = [count(zoo.get_spec(name)).macs for name in everything]
    assert costs == sorted(costs)
    assert zoo.list_models("bignascifar") == tuple(BUDGETS) == zoo.list_models(weights=True)
    assert zoo.list_models(weights="cifar10", family="bignascifar") == tuple(BUDGETS)
    assert zoo.list_models("fairnas") == ("fairnas_c", "fairnas_b", "fairnas_a")
    assert zoo.list_models("fairnas", weights=True) == ()
    assert set(zoo.list_models(weights=False)) == set(PUBLISHED)


def test_unknown_names_are_refused_with_the_known_ones():
    for read in (zoo.get_spec, zoo.get_preset, zoo.get_model):
        with pytest.raises(ValueError, match="must be one of bignascifar_s, .* Received: 'xxl'"):
            read("xxl")
    for name, meant in {
        "BigNASCifarXL": "bignascifar_xl",
        "attentivenas-A1": "attentivenas_a1",
    }.items():
        with pytest.raises(ValueError, match=rf"\(did you mean '{meant}'\?\). Received: '{name}'"):
            zoo.get_model(name)
    with pytest.raises(ValueError, match="`family` must be one of bignascifar, .* Received: 'ofa'"):
        zoo.list_models("ofa")
    with pytest.raises(ValueError, match="`weights` must be .*cifar10. Received: 'imagenet'"):
        zoo.list_models(weights="imagenet")


def test_all_names_of_the_zoo_are_there_though_models_are_imported_when_asked_for():
    assert set(zoo.__all__) <= set(dir(zoo))
    assert set(zoo.__all__) == {*zoo._MODULES, "get_preset", "get_spec", "list_models"}
    for name, module in zoo._MODULES.items():
        found = getattr(zoo, name)
        assert found.__module__ == f"bignas_tf.zoo.{module}"
        assert getattr(zoo, name) is found
    with pytest.raises(AttributeError, match="'bignas_tf.zoo' has no attribute 'ResNet50'"):
        _ = zoo.ResNet50


def test_a_preset_that_a_caller_changes_stays_as_it_is():
    zoo.get_preset("bignasmodel_s")["spec"]["classes"] = 5
    assert zoo.get_preset("bignasmodel_s")["spec"]["classes"] == 1000
    with pytest.raises(dataclasses.FrozenInstanceError):
        zoo.get_spec("bignasmodel_s").classes = 5
