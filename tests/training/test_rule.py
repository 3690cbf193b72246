import dataclasses
import json

import numpy as np
import pytest

from bignas_tf.spaces import get_space
from bignas_tf.training.losses import label_cross_entropy, soft_cross_entropy
from bignas_tf.training.rule import SandwichRule

DIGITS = get_space("digits")
LOGITS = np.random.default_rng(0).normal(size=(4, 10))
TEACHER = np.random.default_rng(1).normal(size=(4, 10))
LABELS = np.array([3, 0, 9, 3], np.int32)


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def genotypes(rule, seed, step):
    return [term.genotype for term in rule.plan(seed, step)]


def test_a_plan_depends_on_seed_and_step_only():
    first, second = SandwichRule(DIGITS), SandwichRule(get_space("digits"))
    in_order = [first.plan(7, step) for step in range(20)]
    np.random.seed(3)
    backwards = [second.plan(7, step) for step in reversed(range(20))][::-1]
    assert in_order == backwards


def test_other_steps_and_other_seeds_draw_other_children():
    rule = SandwichRule(DIGITS, random_children=4)
    plans = [genotypes(rule, seed, step)[2:] for seed in range(5) for step in range(20)]
    drawn = {genotype for plan in plans for genotype in plan}
    # 400 uniform draws out of 6,912 networks: 388 different ones are expected, give or take 3.4.
    assert 374 < len(drawn) < 400
    assert genotypes(rule, 0, 1) != genotypes(rule, 1, 0)


def test_every_step_has_the_same_terms_and_the_two_extremes_first():
    rule = SandwichRule(DIGITS, random_children=3)
    outlines = {
        tuple((term.name, term.role, term.weight, term.recurs) for term in rule.plan(0, step))
        for step in range(30)
    }
    assert outlines == {
        (
            ("biggest", "biggest", 1.0, True),
            ("smallest", "smallest", 1.0, True),
            ("random1", "random", 1.0, False),
            ("random2", "random", 1.0, False),
            ("random3", "random", 1.0, False),
        )
    }
    for step in range(30):
        assert genotypes(rule, 0, step)[:2] == [DIGITS.biggest(), DIGITS.smallest()]


def test_random_children_take_every_choice_about_equally_often():
    rule = SandwichRule(DIGITS, random_children=2)
    drawn = [genotype for step in range(500) for genotype in genotypes(rule, 0, step)[2:]]
    for gene in DIGITS.genes:
        counts = [sum(g[gene.name] == choice for g in drawn) for choice in gene.choices]
        expected = len(drawn) / len(gene.choices)
        # Five standard deviations of a binomial count.
        assert np.abs(np.array(counts) - expected).max() < 5 * np.sqrt(expected)


def test_training_on_the_bignas_space_never_draws_256_pixels():
    rule = SandwichRule(get_space("bignas"), random_children=2)
    drawn = {g["resolution"] for step in range(200) for g in genotypes(rule, 1, step)}
    assert drawn == {192, 224, 288, 320}


def test_the_biggest_child_learns_from_smoothed_labels():
    rule = SandwichRule(DIGITS, label_smoothing=0.1)
    target = np.full((4, 10), 0.01)
    target[np.arange(4), LABELS] += 0.9
    expected = -(target * np.log(softmax(LOGITS))).sum(-1)
    found = rule.loss("biggest", LOGITS, LABELS, {})
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("role", ["smallest", "random"])
def test_other_children_learn_from_the_biggest_and_not_from_the_labels(role):
    rule = SandwichRule(DIGITS, label_smoothing=0.1)
    expected = -(softmax(TEACHER) * np.log(softmax(LOGITS))).sum(-1)
    for labels in (LABELS, LABELS[::-1].copy()):
        found = rule.loss(role, LOGITS, labels, {"biggest": TEACHER})
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_distillation_every_child_learns_from_the_labels():
    rule = SandwichRule(DIGITS, label_smoothing=0.1, distillation=False)
    losses = [rule.loss(role, LOGITS, LABELS, {}) for role in ("biggest", "smallest", "random")]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])


def test_only_the_biggest_is_regularized_unless_all_are_asked_for():
    roles = ("biggest", "smallest", "random")
    assert [SandwichRule(DIGITS).regularized(role) for role in roles] == [True, False, False]
    everywhere = SandwichRule(DIGITS, regularize="all")
    assert [everywhere.regularized(role) for role in roles] == [True, True, True]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("random_children", -1),
        ("random_children", 2.0),
        ("label_smoothing", 1.0),
        ("regularize", "smallest"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be .*Received: {value!r}"):
        SandwichRule(DIGITS, **{option: value})


def test_the_record_of_a_rule_holds_every_option_but_the_space():
    rule = SandwichRule(DIGITS, 3, 0.1, False, "all", False)
    config = json.loads(json.dumps(rule.config()))
    assert config.pop("kind") == "sandwich"
    assert config.pop("teacher") is False
    assert SandwichRule(DIGITS, **config) == rule
    assert {*config, "teacher"} == {field.name for field in dataclasses.fields(rule)} - {"space"}
    assert SandwichRule(DIGITS, teacher=lambda images: images).config()["teacher"] is True


def test_without_the_sandwich_single_paths_learn_from_the_labels():
    rule = SandwichRule(DIGITS, random_children=1, sandwich=False)
    (path,) = rule.plan(seed=0, step=5)
    assert path == SandwichRule(DIGITS, random_children=1).plan(seed=0, step=5)[-1]
    logits = np.random.default_rng(0).normal(size=(4, 10)).astype("float32")
    labels = np.array([1, 2, 3, 4])
    expected = label_cross_entropy(labels, logits)
    np.testing.assert_array_equal(rule.loss("random", logits, labels, {}), expected)
    with pytest.raises(ValueError, match="`random_children` must be .*Received: 0"):
        SandwichRule(DIGITS, random_children=0, sandwich=False)


def test_a_space_of_one_child_trains_it_alone_as_the_biggest():
    genotype = DIGITS.sample(1, seed=3)[0]
    space = DIGITS.restricted({name: [value] for name, value in genotype.as_dict().items()})
    (term,) = SandwichRule(space).plan(seed=0, step=0)
    assert (term.name, term.role, term.recurs) == ("biggest", "biggest", True)
    assert term.genotype.as_dict() == genotype.as_dict()
    assert term.genotype.spec() == genotype.spec()


def test_a_child_and_the_biggest_are_trained_jointly_in_the_space_of_their_choices():
    genotype, biggest = DIGITS.sample(1, seed=3)[0], DIGITS.biggest().as_dict()
    pairs = {name: [value, biggest[name]] for name, value in genotype.as_dict().items()}
    rule = SandwichRule(DIGITS.restricted(pairs), random_children=0)
    teacher, student = rule.plan(seed=0, step=0)
    assert teacher.genotype.as_dict() == biggest
    assert student.genotype.as_dict() == genotype.as_dict()


def test_the_biggest_child_learns_from_a_teacher_instead_of_the_labels():
    rule = SandwichRule(DIGITS, teacher=lambda images: images, label_smoothing=0.1)
    rng = np.random.default_rng(0)
    logits, own, outer = rng.normal(size=(3, 4, 10)).astype("float32")
    outputs = {"teacher": outer, "biggest": own}
    for role, teacher in (("biggest", outer), ("smallest", own)):
        found = rule.loss(role, logits, np.zeros(4, "int32"), outputs)
        np.testing.assert_array_equal(found, soft_cross_entropy(teacher, logits))
