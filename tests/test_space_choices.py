"""Choices of spaces: those that are refused, fewer of them, and the fields beside them."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest

from bignas_tf.cost import count
from bignas_tf.ops import Activation, Dropout
from bignas_tf.spaces import (
    SPACES,
    GenotypeError,
    MBConvSpace,
    Space,
    Stage,
    catalog,
    get_space,
    register_space,
    space_from_config,
)

every_space = pytest.mark.parametrize("name", sorted(SPACES))
STAGE = {"widths": (8,), "depths": (1,), "kernels": (3,), "expands": (1,), "strides": 1}
BAD_CHOICES = [(), [8], 8, (16, 8), (8, 8), (0, 8), (8.0,), (True,)]


def refusal(argument: str, bad: object) -> str:
    received = re.escape(f"Received: {bad!r}")
    return rf"^`{argument}` must be a non-empty tuple of ascending positive .*{received}$"


@pytest.mark.parametrize("bad", BAD_CHOICES)
def test_choices_that_are_no_ascending_positive_integers_are_refused_by_name(bad):
    for argument in ("widths", "depths", "kernels", "expands"):
        with pytest.raises(ValueError, match=refusal(argument, bad)):
            Stage(**{**STAGE, argument: bad})
    for argument in ("resolution_choices", "stem_widths", "head_widths"):
        with pytest.raises(ValueError, match=refusal(argument, bad)):
            dataclasses.replace(get_space("digits"), **{argument: bad})


@pytest.mark.parametrize(
    ("refused", "fields"),
    [
        (None, {"kernels": (1, 3)}),
        (None, {"kernels": (1,), "strides": 2}),
        (None, {"kernels": (3, 5), "strides": 2, "expands": (2, 3)}),
        ("kernels", {"kernels": (1, 3), "strides": 2}),
        ("kernels", {"kernels": (1, 5), "strides": 3}),
        ("expands", {"expands": (1, 4)}),
    ],
)
def test_a_stage_refuses_only_what_shared_weights_cannot_hold(refused, fields):
    if refused is None:
        assert Stage(**{**STAGE, **fields}).strides == fields.get("strides", 1)
        return
    with pytest.raises(ValueError, match=rf"^`{refused}` must not mix 1 .*Received: \(1, "):
        Stage(**{**STAGE, **fields})


@pytest.mark.parametrize(
    ("stem", "widths", "strides", "fits"),
    [
        ((8,), (8,), 1, True),  # always equal
        ((8, 16), (24, 32), 1, True),  # never equal
        ((8, 16), (8, 16), 2, True),  # strided: never added
        ((8, 16), (16,), 1, False),
        ((8,), (8, 16), 1, False),
        ((8, 16), (8, 16), 1, False),
    ],
)
def test_identities_are_refused_where_only_some_genotypes_would_have_them(
    stem, widths, strides, fits
):
    first = Stage(**{**STAGE, "widths": stem})
    stages = (first, Stage(**{**STAGE, "widths": widths, "strides": strides}))
    space = MBConvSpace("a", (8,), (4,), stages, (8,))
    if fits:
        assert not any("shortcut" in op.name for op in identities(space).ops())
        return
    with pytest.raises(ValueError, match=r"^`shortcut` .* in stage 2: .*Received: 'identity'$"):
        identities(space)


def identities(space: MBConvSpace) -> MBConvSpace:
    return dataclasses.replace(space, shortcut="identity")


@pytest.mark.parametrize(
    ("field", "bad"), [("shortcut", "pooling"), ("shortcut", None), ("training_resolutions", (9,))]
)
def test_a_field_that_does_not_go_with_the_choices_is_refused_by_name(field, bad):
    with pytest.raises(
        ValueError, match=rf"^`{field}` must be (?!None).*Received: {re.escape(repr(bad))}"
    ):
        dataclasses.replace(get_space("digits"), **{field: bad})


@pytest.mark.parametrize("name", ["digits", "attentivenas"])  # one for each kind of head
def test_activation_and_dropout_of_a_space_are_those_of_its_networks(name):
    space = dataclasses.replace(get_space(name), activation="relu6", dropout=0.5)
    ops = space.biggest().spec().ops()
    functions = {op.function for op in ops if isinstance(op, Activation) and "_se_" not in op.name}
    assert functions == {"relu6"}
    assert [op.rate for op in ops if isinstance(op, Dropout)] == [0.5]


def test_fewer_choices_leave_everything_else_as_it_was():
    space = get_space("bignas")
    few = {"resolution": [256, 192, 224], "stem_width": (32,), "stage3_width": [48]}
    part = space.restricted({**few, "stage4_depth": [2, 4], "head_width": (1280, 1408)})
    assert {gene.name: gene.choices for gene in part.genes} == {
        **{gene.name: gene.choices for gene in space.genes},
        "resolution": (192, 224, 256),
        "stem_width": (32,),
        "stage3_width": (48,),
        "stage4_depth": (2, 4),
        "head_width": (1280, 1408),
    }
    assert part.training_restriction == {"resolution": (192, 224)}
    assert get_space("digits").training_restriction == {}
    assert part.smallest().spec() == space.smallest().replace(stage3_width=48).spec()
    assert space.restricted({}) is space
    assert space.restricted({"stem_width": [40, 32]}) is space


@pytest.mark.parametrize(
    ("gene", "bad", "message"),
    [
        ("depth", [1], r"^Genes of space 'digits' are resolution, stem_width, .*'depth'$"),
        ("resolution", [], r"must keep one or more of 8, 10, 12\. Received: \[\]$"),
        ("resolution", 8, r"^`resolution` of space 'digits' must keep .*Received: 8$"),
        ("resolution", [8, 9], r"must keep .*Received: \[8, 9\]$"),
        ("resolution", [8.0], r"must keep .*Received: \[8\.0\]$"),
        ("stage1_depth", [True], r"must keep .*Received: \[True\]$"),
    ],
)
def test_choices_that_a_space_does_not_have_are_refused(gene, bad, message):
    with pytest.raises(GenotypeError, match=message):
        get_space("digits").restricted({gene: bad})


def test_a_space_that_does_not_say_how_cannot_have_fewer_choices():
    with pytest.raises(GenotypeError, match="Space 'digits' must define .* a MBConvSpace without"):
        Space.with_choices(get_space("digits"), {})


def test_a_space_of_one_network_has_no_mutation():
    space = get_space("digits")
    one = space.restricted({gene.name: gene.choices[:1] for gene in space.genes})
    assert (one.size(), one.smallest()) == (1, one.biggest())
    with pytest.raises(GenotypeError, match="Space 'digits' has one network"):
        one.mutate(one.smallest(), None)


def test_all_genotypes_are_the_combinations_of_the_choices():
    space = get_space("digits")
    fixed = {gene.name: gene.choices[:1] for gene in space.genes}
    few = space.restricted({**fixed, "resolution": [8, 12], "stage1_depth": [1, 2]})
    assert few.resolutions == (8, 12)
    smallest = dict(few.smallest().as_dict())
    assert [genotype.as_dict() for genotype in few.all_genotypes()] == [
        {**smallest, "resolution": resolution, "stage1_depth": depth}
        for resolution in (8, 12)
        for depth in (1, 2)
    ]
    assert {genotype.space for genotype in few.all_genotypes()} == {few}


# The spaces that come with the package ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "classes", "smallest", "biggest"),
    [
        ("cifar", (32, 32, 3), 10, (2_541_064, 89_310), (10_059_264, 264_444)),
        ("cifar_small", (32, 32, 3), 10, (623_016, 20_478), (2_786_048, 82_780)),
        ("digits", (12, 12, 1), 10, (121_184, 14_620), (1_721_128, 81_852)),
        ("mobile", (160, 160, 3), 1000, (13_248_352, 755_156), (96_399_744, 1_662_384)),
    ],
)
def test_a_space_that_no_paper_has_keeps_its_images_classes_and_costs(
    name, shape, classes, smallest, biggest
):
    # MACs and parameters of the layers of the Keras models that were built of them.
    space = get_space(name)
    spec = space.biggest().spec()
    assert (spec.input_shape, spec.classes) == (shape, classes)
    for genotype, counts in ((space.smallest(), smallest), (space.biggest(), biggest)):
        cost = count(genotype.spec())
        assert (cost.macs, cost.params) == counts


@every_space
def test_widths_are_multiples_of_eight_and_resolutions_evenly_spaced(name):
    for gene in get_space(name).genes:
        if gene.name.endswith("width"):
            assert all(width % 8 == 0 for width in gene.choices)
        if gene.name == "resolution":
            assert len({b - a for a, b in itertools.pairwise(gene.choices)}) == 1


@pytest.mark.parametrize("classes", [0, -1, 2.0, "2", True])
def test_an_impossible_number_of_classes_is_refused_by_name(classes):
    with pytest.raises(ValueError, match=r"^`classes` must be an integer of at least 1\. Received"):
        get_space("digits", classes=classes)


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten."""
    monkeypatch.setattr(catalog, "SPACES", dict(SPACES))
    monkeypatch.setattr(catalog, "_CLASSES", dict(catalog._CLASSES))


def derived(class_name: str, name: str) -> MBConvSpace:
    """The digits in a class of their own."""
    fields = vars(get_space("digits"))
    names = [field.name for field in dataclasses.fields(MBConvSpace)]
    return type(class_name, (MBConvSpace,), {})(**{**{n: fields[n] for n in names}, "name": name})


def test_a_config_of_before_classes_were_named_is_one_of_mbconv():
    config = get_space("attentivenas").config()
    assert config.pop("class") == "MBConvSpace"
    assert space_from_config(config) == get_space("attentivenas")


def test_a_config_names_a_class_that_was_registered(registry):
    space = derived("Mine", "mine")
    with pytest.raises(ValueError, match=r"^`class of the space \(register_space\)` .*'Mine'$"):
        space_from_config(space.config())
    register_space(space)
    assert space_from_config(space.config()) == get_space("mine") == space
    assert type(space_from_config(space.config())) is type(space)


def test_a_registered_space_is_known_by_its_name_until_another_wants_it(registry):
    space = dataclasses.replace(get_space("digits"), name="mine")
    register_space(space)
    register_space(dataclasses.replace(space))
    assert get_space("mine") == space
    for other in (get_space("digits", classes=3), dataclasses.replace(space, classes=3)):
        with pytest.raises(ValueError, match=rf"^`space` must be one whose .*'{other.name}'$"):
            register_space(other)
    assert get_space("digits").classes == get_space("mine").classes == 10


def test_a_class_whose_name_is_taken_is_not_registered(registry):
    with pytest.raises(ValueError, match=r"^`space` must be of a class whose .*'MBConvSpace'$"):
        register_space(derived("MBConvSpace", "other"))
    assert "other" not in catalog.SPACES


BARE = type("Bare", (Space,), {"genes": (), "spec": None, "all_ops_spec": None})


@pytest.mark.parametrize("bad", ["digits", Stage(**STAGE), BARE()])
def test_only_spaces_that_are_dataclasses_are_registered(registry, bad):
    with pytest.raises(ValueError, match=r"^`space` must be an instance .*: ('|Stage|<.*Bare)"):
        register_space(bad)
