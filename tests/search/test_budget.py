"""Budgets, their text form, and the metrics that they limit."""

from __future__ import annotations

import re

import pytest
from landscapes import tiny_space

from bignas_tf.search import (
    METRICS,
    Budget,
    CombinedBudget,
    cheapest,
    check_feasible,
    measure,
    parse_budgets,
    register_metric,
)
from bignas_tf.spaces import SPACES, get_space

FORM = "`budgets` must be written like mmacs:5,8,12 or mmacs:5,8+size_mb:0.4. Received: "
KNOWN = "mmacs, params_m, size_mb, size_mb_float16, size_mb_dynamic, size_mb_int8, latency_ms"


@pytest.fixture
def layers():
    """A metric that counts ops, known during one test."""
    yield register_metric("layers", "layers", lambda spec: len(spec.ops()))
    del METRICS["layers"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mmacs:5,8,12", [("mmacs", 5), ("mmacs", 8), ("mmacs", 12)]),
        ("params_m:0.2,0.3", [("params_m", 0.2), ("params_m", 0.3)]),
        (" mmacs : 5 , 2.5e1 ", [("mmacs", 5), ("mmacs", 25)]),
        ("mmacs:8,5", [("mmacs", 8), ("mmacs", 5)]),
        ("mmacs:5;params_m:0.2", [("mmacs", 5), ("params_m", 0.2)]),
        ("mmacs:2.5e+1,1e+2", [("mmacs", 25), ("mmacs", 100)]),
    ],
)
def test_budgets_read_as_written_and_in_order(text, expected):
    assert [(budget.metric, budget.limit) for budget in parse_budgets(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", FORM + "''"),
        ("5,8", FORM + "'5,8'"),
        ("mmacs:", FORM + "'mmacs:'"),
        ("mmacs:5;", FORM + "'mmacs:5;'"),
        ("flops:5", f"`metric` must be one of {KNOWN}. Received: 'flops'"),
        ("MMACs:5", f"`metric` must be one of {KNOWN}. Received: 'MMACs'"),
        (":5", f"`metric` must be one of {KNOWN}. Received: ''"),
        ("mmacs:5,,8", "`limit` must be a number above 0. Received: ''"),
        ("mmacs:5,", "`limit` must be a number above 0. Received: ''"),
        ("mmacs:five", "`limit` must be a number above 0. Received: 'five'"),
        ("mmacs:5 8", "`limit` must be a number above 0. Received: '5 8'"),
        ("mmacs:5_8", "`limit` must be a number above 0. Received: '5_8'"),
        ("mmacs:-5", "`limit` must be a number above 0. Received: '-5'"),
        ("mmacs:0", "`limit` must be a number above 0. Received: '0'"),
        ("mmacs:nan", "`limit` must be a number above 0. Received: 'nan'"),
        ("mmacs:inf", "`limit` must be a number above 0. Received: 'inf'"),
        ("mmacs:5:8", "`limit` must be a number above 0. Received: '5:8'"),
        ("mmacs:5,8,5", "`budgets` must be given once each. Received: 'mmacs:5,8,5'"),
        ("mmacs:5+", "`limit` must be a number above 0. Received: '5+'"),
        ("mmacs:5+size_mb", "`limit` must be a number above 0. Received: '5+size_mb'"),
        ("mmacs:5+flops:1", f"`metric` must be one of {KNOWN}. Received: 'flops'"),
        (
            "mmacs:5,8,9+size_mb:1,2",
            "`budgets` must be as many for each of the metrics that a + joins. Received: '3 and 2'",
        ),
        (
            "mmacs:5+mmacs:8",
            "`members` must be two budgets or more, each of another metric. "
            "Received: ['mmacs', 'mmacs']",
        ),
        (
            "mmacs:5+size_mb:1;mmacs:5+size_mb:1",
            "`budgets` must be given once each. Received: 'mmacs:5+size_mb:1;mmacs:5+size_mb:1'",
        ),
        ("mmacs:5,5.0", "`budgets` must be given once each. Received: 'mmacs:5,5.0'"),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(ValueError) as error:
        parse_budgets(text)
    assert str(error.value) == message


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), True, "5", None])
def test_a_budget_refuses_an_impossible_limit(limit):
    with pytest.raises(ValueError, match="`limit` must be a number above 0. Received: "):
        Budget("mmacs", limit)


def test_budgets_are_named_by_metric_and_limit():
    assert [b.name for b in parse_budgets("mmacs:5,0.25,1040;params_m:4.5")] == [
        "mmacs_5",
        "mmacs_0.25",
        "mmacs_1040",
        "params_m_4.5",
    ]
    assert Budget("mmacs", 5).to_json() == {"mmacs": 5.0}


def test_metrics_are_the_published_counts():
    # The BigNAS space's bounds, counted independently of this package.
    space = get_space("bignas")
    assert measure(space.smallest(), "mmacs") == pytest.approx(217.6, abs=0.05)
    assert measure(space.smallest(), "params_m") == pytest.approx(3.844, abs=5e-4)
    assert measure(space.biggest(), "mmacs") == pytest.approx(1891.5, abs=0.05)
    assert measure(space.biggest(), "params_m") == pytest.approx(11.015, abs=5e-4)


def test_a_child_that_meets_the_limit_exactly_is_within_it():
    smallest = get_space("digits").smallest()
    cost = measure(smallest, "mmacs")
    assert Budget("mmacs", cost).allows(smallest)
    assert not Budget("mmacs", cost * (1 - 1e-12)).allows(smallest)


def test_an_infeasible_budget_is_refused_with_the_least_feasible_one():
    with pytest.raises(ValueError) as error:
        check_feasible(Budget("mmacs", 1), get_space("cifar"))
    assert str(error.value) == (
        "`budget` must be at least 2.542 MMACs, the smallest child of space 'cifar' at 24 px. "
        "Received: 1"
    )


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("metric", ["mmacs", "params_m", "size_mb_int8"])
def test_the_budget_that_the_message_asks_for_is_feasible_and_tight(name, metric):
    space = get_space(name)
    with pytest.raises(ValueError) as error:
        check_feasible(Budget(metric, 1e-3), space)
    found = re.search(r"at least (\S+) [^,]*, the smallest", str(error.value))
    assert found
    least = float(found[1])
    check_feasible(Budget(metric, least), space)
    assert least == pytest.approx(measure(space.smallest(), metric), rel=1e-3)


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("metric", ["mmacs", "params_m", "size_mb_int8"])
def test_no_change_of_one_gene_makes_the_smallest_child_cheaper(name, metric):
    smallest = get_space(name).smallest()
    least = measure(smallest, metric)
    assert all(measure(g, metric) >= least for g in smallest.space.neighbours(smallest))


def test_a_registered_metric_can_be_budgeted(layers):
    space = get_space("digits")
    (budget,) = parse_budgets("layers:60")
    assert budget.cost(space.smallest()) == len(space.smallest().spec().ops())
    with pytest.raises(ValueError, match="`budget` must be at least .* layers, the smallest"):
        check_feasible(Budget("layers", 3), space)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mmacs:5,8+size_mb:0.4,0.6", [(5, 0.4), (8, 0.6)]),
        ("mmacs:5,8 + size_mb:0.4", [(5, 0.4), (8, 0.4)]),
        ("mmacs:5+size_mb:0.4,0.6", [(5, 0.4), (5, 0.6)]),
        ("mmacs:5e+0+size_mb:4e-1", [(5, 0.4)]),
    ],
)
def test_a_plus_limits_several_metrics_at_once(text, expected):
    budgets = parse_budgets(text, at_least=0.5)
    found = [[(part.metric, part.limit) for part in budget.parts] for budget in budgets]
    assert found == [[("mmacs", mmacs), ("size_mb", size)] for mmacs, size in expected]
    assert all(budget.at_least == 0.5 for budget in budgets)


def test_combined_budgets_stand_beside_single_ones():
    first, second = parse_budgets("mmacs:5+params_m:0.2;mmacs:8")
    assert first.to_json() == {"mmacs": 5.0, "params_m": 0.2}
    assert (first.name, first.metric) == ("mmacs_5_params_m_0.2", "mmacs+params_m")
    assert second == Budget("mmacs", 8)


def test_a_combined_budget_is_met_where_every_limit_is():
    space = get_space("cifar")
    mmacs, params = Budget("mmacs", 6), Budget("params_m", 0.12)
    both = CombinedBudget(members=(mmacs, params))
    met = [(mmacs.allows(g), params.allows(g), both.allows(g)) for g in space.sample(200, seed=0)]
    assert {(a, b) for a, b, _ in met} == {(a, b) for a in (False, True) for b in (False, True)}
    assert all(c == (a and b) for a, b, c in met)


def test_the_cost_of_a_combined_budget_is_the_largest_share_of_a_limit():
    genotype = get_space("cifar").biggest()
    mmacs, params = measure(genotype, "mmacs"), measure(genotype, "params_m")
    members = (Budget("mmacs", 2 * mmacs), Budget("params_m", 1.25 * params))
    budget = CombinedBudget(members=members, at_least=0.7)
    assert budget.cost(genotype) / budget.limit == pytest.approx(0.8)
    assert budget.uses_enough(genotype)
    assert not CombinedBudget(members=members, at_least=0.9).uses_enough(genotype)
    assert budget.costs(genotype) == {"mmacs": mmacs, "params_m": params}


def test_a_combination_that_no_child_meets_is_refused_with_one_that_the_nearest_meets():
    space = get_space("cifar")
    (budget,) = parse_budgets("mmacs:3+size_mb_int8:0.01")
    with pytest.raises(ValueError) as error:
        check_feasible(budget, space)
    found = re.search(r"at least (\S+) MMACs and (\S+) MB of the int8 TFLite", str(error.value))
    assert found and str(error.value).endswith("Received: 3, 0.01")
    check_feasible(parse_budgets(f"mmacs:{found[1]}+size_mb_int8:{found[2]}")[0], space)


@pytest.mark.parametrize("members", [(), (Budget("mmacs", 5),), (Budget("mmacs", 5),) * 2])
def test_a_combined_budget_has_two_metrics_or_more(members):
    with pytest.raises(ValueError, match="`members` must be two budgets or more"):
        CombinedBudget(members=members)


class Energy:
    """A metric that is an object, and cannot be hashed."""

    unit = "mJ"
    __hash__ = None

    def profile(self, spec):
        return 2.0 * len(spec.blocks)


@pytest.mark.parametrize("profile", [Energy(), lambda spec: 2.0 * len(spec.blocks)])
def test_anything_that_profiles_a_spec_can_be_budgeted_without_registration(profile):
    space = get_space("cifar")
    smallest = space.smallest()
    budget = Budget("energy", 14, profile=profile)
    assert budget.cost(smallest) == 2 * len(smallest.spec().blocks) == 14
    assert budget.allows(smallest) and not budget.allows(space.biggest())
    assert (budget.name, budget.to_json()) == ("energy_14", {"energy": 14.0})
    (parsed,) = parse_budgets("energy:14", metrics={"energy": profile})
    assert parsed.cost(smallest) == 14
    assert hash(budget) == hash(Budget("energy", 14, profile=profile))
    with pytest.raises(ValueError, match="`budget` must be at least 14.00 "):
        check_feasible(Budget("energy", 13, profile=profile), space)


@pytest.mark.parametrize("worth", [float("nan"), float("inf"), -1.0])
def test_a_metric_that_is_no_cost_is_refused_when_it_is_asked(worth):
    budget = Budget("energy", 14, profile=lambda spec: worth)
    with pytest.raises(ValueError, match="`energy` must be a number of at least 0 for Genotype"):
        budget.cost(get_space("digits").smallest())


@pytest.mark.parametrize(("metric", "profile"), [("energy", 3.0), ("two words", len)])
def test_what_cannot_profile_is_no_metric(metric, profile):
    with pytest.raises(ValueError, match="`profile` must be a function|`metric` must be an ident"):
        Budget(metric, 14, profile=profile)


def uneven(spec):
    """Cheapest where widths are odd multiples of 8 and depths large."""
    widths = sum(op.channels // 8 % 2 == 0 for op in spec.ops() if op.name.endswith("project_conv"))
    return 1.0 + widths + 1.0 / len(spec.blocks)


def test_the_cheapest_child_is_sought_where_it_is_not_the_smallest():
    space = tiny_space()
    every = {genotype: uneven(genotype.spec()) for genotype in space.all_genotypes()}
    least = min(every.values())
    assert uneven(space.smallest().spec()) > least
    budget = Budget("uneven", 1e-3, profile=uneven)
    assert budget.cost(cheapest(budget, space)) == least
    check_feasible(Budget("uneven", least, profile=uneven), space)
    with pytest.raises(ValueError, match=r"the cheapest child that coordinate descent finds, \{"):
        check_feasible(Budget("uneven", least - 1e-6, profile=uneven), space)


def test_a_metrics_costs_are_forgotten_with_it(layers):
    smallest = get_space("digits").smallest()
    before = measure(smallest, "layers")
    del METRICS["layers"]
    register_metric("layers", "layers", lambda spec: 2 * len(spec.ops()))
    assert measure(smallest, "layers") == 2 * before


@pytest.mark.parametrize("name", ["mmacs", "two words", "", None])
def test_a_metric_needs_a_name_of_its_own(name):
    with pytest.raises(ValueError, match=f"`name` must be an identifier other than {KNOWN}"):
        register_metric(name, "units", lambda spec: 1.0)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match=f"`metric` must be one of {KNOWN}. Received: 'x'"):
        measure(get_space("digits").smallest(), "x")
