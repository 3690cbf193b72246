"""Budgets, their text form, and the metrics that they limit."""

from __future__ import annotations

import re

import pytest

from bignas_tf.search import (
    METRICS,
    Budget,
    check_feasible,
    measure,
    parse_budgets,
    register_metric,
)
from bignas_tf.spaces import SPACES, get_space


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
    ],
)
def test_budgets_read_as_written_and_in_order(text, expected):
    assert [(budget.metric, budget.limit) for budget in parse_budgets(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "`budgets` must be written like mmacs:5,8,12. Received: ''"),
        ("5,8", "`budgets` must be written like mmacs:5,8,12. Received: '5,8'"),
        ("mmacs:", "`budgets` must be written like mmacs:5,8,12. Received: 'mmacs:'"),
        ("mmacs:5;", "`budgets` must be written like mmacs:5,8,12. Received: 'mmacs:5;'"),
        ("flops:5", "`metric` must be one of mmacs, params_m. Received: 'flops'"),
        ("MMACs:5", "`metric` must be one of mmacs, params_m. Received: 'MMACs'"),
        (":5", "`metric` must be one of mmacs, params_m. Received: ''"),
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
@pytest.mark.parametrize("metric", ["mmacs", "params_m"])
def test_the_budget_that_the_message_asks_for_is_feasible_and_tight(name, metric):
    space = get_space(name)
    with pytest.raises(ValueError) as error:
        check_feasible(Budget(metric, 1e-3), space)
    found = re.search(r"at least (\S+) (?:MMACs|M parameters), the smallest", str(error.value))
    assert found
    least = float(found[1])
    check_feasible(Budget(metric, least), space)
    assert least == pytest.approx(measure(space.smallest(), metric), rel=1e-3)


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("metric", ["mmacs", "params_m"])
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


def test_a_metrics_costs_are_forgotten_with_it(layers):
    smallest = get_space("digits").smallest()
    before = measure(smallest, "layers")
    del METRICS["layers"]
    register_metric("layers", "layers", lambda spec: 2 * len(spec.ops()))
    assert measure(smallest, "layers") == 2 * before


@pytest.mark.parametrize("name", ["mmacs", "two words", "", None])
def test_a_metric_needs_a_name_of_its_own(name):
    with pytest.raises(ValueError, match="`name` must be an identifier other than mmacs, params_m"):
        register_metric(name, "units", lambda spec: 1.0)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="`metric` must be one of mmacs, params_m. Received: 'x'"):
        measure(get_space("digits").smallest(), "x")
