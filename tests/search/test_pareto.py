"""The front of non-dominated points."""

from __future__ import annotations

import numpy as np
import pytest

from bignas_tf.search import front


def dominates(a, b, cost, value):
    no_worse = a[cost] <= b[cost] and a[value] >= b[value]
    return no_worse and (a[cost] < b[cost] or a[value] > b[value])


@pytest.mark.parametrize("levels", [3, 12, 10_000])
@pytest.mark.parametrize("count", [0, 1, 2, 30, 200])
def test_the_front_is_that_of_brute_force(levels, count):
    rng = np.random.default_rng(count + levels)  # few levels: many ties
    points = [
        {
            "id": i,
            "mmacs": int(rng.integers(levels)),
            "accuracy": int(rng.integers(levels)) / levels,
        }
        for i in range(count)
    ]
    kept = front(points)
    expected = [p for p in points if not any(dominates(q, p, "mmacs", "accuracy") for q in points)]
    assert sorted(p["id"] for p in kept) == sorted(p["id"] for p in expected)
    assert [p["mmacs"] for p in kept] == sorted(p["mmacs"] for p in kept)
    assert [p["accuracy"] for p in kept] == sorted(p["accuracy"] for p in kept)


def test_cost_and_value_can_be_any_numbers_of_the_points():
    points = [
        {"params_m": 3, "score": 2, "mmacs": 1, "accuracy": 0.9},
        {"params_m": 1, "score": 1, "mmacs": 2, "accuracy": 0.1},
        {"params_m": 2, "score": 1, "mmacs": 3, "accuracy": 0.2},
    ]
    assert front(points, cost="params_m", value="score") == [points[1], points[0]]
    assert front(points) == [points[0]]
