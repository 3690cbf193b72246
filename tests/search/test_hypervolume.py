"""Objectives, and the hypervolume of points under them."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

from bignas_tf.search import (
    Objective,
    default_objectives,
    hypervolume,
    hypervolume_curve,
    parse_budgets,
    parse_objectives,
    worst_corner,
)

TWO = parse_objectives("accuracy:max,mmacs:min")
THREE = parse_objectives("params_m:min,accuracy:max,latency:min")


def drawn(objectives, count, seed, levels=7):
    """Points on a grid of whole numbers: ties, and volumes that are counted exactly."""
    rng = np.random.default_rng(seed)
    return [
        {each.name: int(value) for each, value in zip(objectives, row, strict=True)}
        for row in rng.integers(levels, size=(count, len(objectives)))
    ]


def cells(points, objectives, reference, levels=7):
    """How many unit cells between the grid and the reference some point dominates."""
    total = 0
    for cell in itertools.product(range(levels), repeat=len(objectives)):
        # The cell from `low` to `low + 1` in every objective.
        def covers(point, cell=cell):
            return all(
                point[each.name] >= low + 1 and low >= reference[each.name]
                if each.maximised
                else point[each.name] <= low and low + 1 <= reference[each.name]
                for each, low in zip(objectives, cell, strict=True)
            )

        total += any(map(covers, points))
    return total


@pytest.mark.parametrize("objectives", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("seed", range(4))
def test_the_hypervolume_is_the_sum_of_dominated_cells(objectives, seed):
    points = drawn(objectives, 12, seed)
    for reference in (worst_corner(points, objectives), {each.name: 3 for each in objectives}):
        expected = cells(points, objectives, reference)
        assert hypervolume(points, objectives, reference) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("objectives", [TWO, THREE], ids=["two", "three"])
def test_the_curve_is_the_hypervolume_of_every_beginning(objectives):
    points = drawn(objectives, 25, seed=9)
    reference = {each.name: 1 if each.maximised else 5 for each in objectives}
    curve = hypervolume_curve(points, objectives, reference)
    expected = [cells(points[: i + 1], objectives, reference) for i in range(len(points))]
    np.testing.assert_allclose(curve, expected, atol=1e-9)
    assert curve == sorted(curve)
    assert 0 <= curve[0] < curve[-1] == hypervolume(points, objectives, reference)


def test_points_worse_than_the_reference_count_for_nothing():
    reference = {"accuracy": 0.5, "mmacs": 10}
    good = {"accuracy": 0.75, "mmacs": 6}
    worse = [{"accuracy": 0.4, "mmacs": 1}, {"accuracy": 0.9, "mmacs": 11}]
    assert hypervolume([good], TWO, reference) == 0.25 * 4
    assert hypervolume([*worse, good], TWO, reference) == 0.25 * 4
    assert hypervolume(worse, TWO, reference) == hypervolume([], TWO, reference) == 0
    assert hypervolume_curve([], TWO, reference) == []


def test_the_worst_corner_has_the_worst_of_each_objective():
    points = [{"accuracy": 0.5, "mmacs": 9}, {"accuracy": 0.25, "mmacs": 3, "other": 7}]
    assert worst_corner(points, TWO) == {"accuracy": 0.25, "mmacs": 9}
    with pytest.raises(ValueError, match="`points` must be at least one. Received: "):
        worst_corner([], TWO)


def test_points_and_references_need_a_number_per_objective():
    good, reference = {"accuracy": 0.5, "mmacs": 3}, {"accuracy": 0, "mmacs": 5}
    for function in (hypervolume, hypervolume_curve):
        with pytest.raises(ValueError, match="`mmacs` must be a number in every point.*None"):
            function([good, {"accuracy": 1}], TWO, reference)
        with pytest.raises(ValueError, match="`accuracy` must be a number in every point"):
            function([{"accuracy": float("nan"), "mmacs": 1}], TWO, reference)
        with pytest.raises(ValueError, match="`reference` must be with a number for mmacs"):
            function([good], TWO, {"accuracy": 0})
        with pytest.raises(ValueError, match="`objectives` must be at least one"):
            function([good], [], reference)


def test_without_moocore_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "moocore", None)
    expected = r"The hypervolume needs moocore; in a checkout of .*: pip install '\.\[search\]'"
    with pytest.raises(ModuleNotFoundError, match=expected):
        hypervolume([{"accuracy": 0.5, "mmacs": 3}], TWO, {"accuracy": 0, "mmacs": 5})


# Objectives --------------------------------------------------------------------------


def test_objectives_read_as_written():
    found = parse_objectives(" accuracy : max, mmacs:min ,top1:max,wait:min")
    expected = [("accuracy", "max"), ("mmacs", "min"), ("top1", "max"), ("wait", "min")]
    assert [(each.name, each.direction) for each in found] == expected
    assert [each.maximised for each in found] == [True, False, True, False]
    assert parse_objectives(",".join(map(str, found))) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "`objectives` must be written like accuracy:max,mmacs:min. Received: ''"),
        ("accuracy", "`objectives` must be written like .* Received: 'accuracy'"),
        ("accuracy:max,", "`objectives` must be written like .* Received: 'accuracy:max,'"),
        ("accuracy:", "`direction` must be one of max, min. Received: ''"),
        (":max", "`name` must be an identifier, such as mmacs. Received: ''"),
        ("accuracy:min", "`direction` must be max for accuracy. Received: 'min'"),
        ("mmacs:max", "`direction` must be min for mmacs. Received: 'max'"),
        ("mmacs:min,mmacs:min", "`objectives` must be given once each. Received: "),
    ],
)
def test_other_objectives_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_objectives(text)


def test_by_default_the_objectives_are_accuracy_and_what_is_limited():
    assert default_objectives([]) == TWO
    assert default_objectives(parse_budgets("mmacs:3,5")) == TWO
    expected = (Objective("accuracy", "max"), Objective("params_m", "min"), TWO[1])
    assert default_objectives(parse_budgets("params_m:1;mmacs:3;params_m:2")) == expected
