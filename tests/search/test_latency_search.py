"""Searches under latency that a table tells, and `bignas show` with one."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from block_tables import OVERHEAD, made_up_ms, table_of
from landscapes import noisy, tiny_space

from bignas_tf import cost
from bignas_tf.latency_table import LatencyTable, NetworkTime, blocks_of, space_blocks
from bignas_tf.search import Budget, TabularEvaluator, check_feasible, parse_budgets
from bignas_tf.search.latency import check_coverage, latency_from
from bignas_tf.search.run_search import SearchOptions, search_run
from bignas_tf.spaces import get_space

SPACE = tiny_space()


@pytest.fixture(scope="module")
def table():
    return table_of(space_blocks(SPACE).values())


def test_a_small_table_does_not_guess():
    every = list(space_blocks(SPACE).values())
    small = table_of(every[:10])
    with pytest.raises(ValueError, match="`latency_table` must have every block of the network"):
        small.profile(SPACE.biggest().spec())
    with pytest.raises(ValueError, match=f"a table of the {len(every)} blocks of space 'tiny'"):
        check_coverage(small, SPACE)
    assert check_coverage(table_of(every), SPACE) is None
    note = check_coverage(table_of(every[:-4]), SPACE)
    assert note.startswith(f"4 of {len(every)} blocks of space 'tiny' are not in the latency table")


def test_a_table_of_another_space_or_of_some_resolutions_is_no_table_of_a_space():
    every = list(space_blocks(SPACE).values())
    other = table_of(every[:-4])
    other.header["space"] = "digits"
    with pytest.raises(ValueError, match="must be of space 'tiny'. Received: 'digits'"):
        check_coverage(other, SPACE)
    one = table_of(space_blocks(SPACE, [8]).values())
    one.header["resolutions"] = [8]
    with pytest.raises(ValueError, match=r"of all resolutions of space 'tiny', \[6, 8\]. Rec"):
        check_coverage(one, SPACE)


def test_a_table_that_would_predict_most_blocks_is_refused():
    space = get_space("cifar")
    every = list(space_blocks(space).values())
    table = table_of(every[: len(every) // 3 - 1])
    table.header |= {"space": "cifar", "resolutions": list(space.resolutions)}
    assert table.model is not None
    with pytest.raises(ValueError, match=f"or of at least {-(-len(every) // 3)} of them"):
        check_coverage(table, space)


def test_latency_is_a_metric_where_a_table_is_open(table):
    (budget,) = parse_budgets("latency_ms:0.5+mmacs:0.1")
    smallest = SPACE.smallest()
    with pytest.raises(ValueError, match="`latency_table` or `device` must be given for latency"):
        check_feasible(budget, SPACE)
    with latency_from(table):
        assert budget.costs(smallest)["latency_ms"] == table.profile(smallest.spec())
        other = table_of(space_blocks(SPACE).values(), time=lambda spec: 2 * made_up_ms(spec))
        with latency_from(other):
            assert budget.costs(smallest)["latency_ms"] == other.profile(smallest.spec())
        assert budget.costs(smallest)["latency_ms"] == table.profile(smallest.spec())
    with pytest.raises(ValueError, match="`latency_table` or `device` must be given for latency"):
        budget.cost(smallest)


def test_options_with_a_table_are_checked_by_it_before_anything_is_trained(table, tmp_path):
    path = tmp_path / "table.json"
    table.write(path)
    most = table.profile(SPACE.biggest().spec())
    SearchOptions(f"latency_ms:{most}", latency_table=str(path)).check(SPACE)
    with pytest.raises(ValueError, match="`budget` must be at least .* ms, "):
        SearchOptions(f"latency_ms:{most / 1e3}", latency_table=str(path)).check(SPACE)
    with pytest.raises(ValueError, match="`latency_table` must be of space 'digits'"):
        SearchOptions(f"latency_ms:{most}", latency_table=str(path)).check(get_space("digits"))


def test_only_a_table_that_has_to_predict_needs_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    every = list(space_blocks(SPACE).values())
    networks = [NetworkTime(genotype.spec(), 1.0) for genotype in SPACE.sample(4, seed=0)]
    path = tmp_path / "table.json"
    options = {"budget": "latency_ms:100", "latency_table": str(path)}
    table_of(every, networks).write(path)
    SearchOptions(**options).check(SPACE)
    (chosen,) = Run().search(tmp_path, **options)
    assert chosen["latency_ms"] > 0
    table_of(every[:-4], networks).write(path)
    expected = r"regression of a latency table needs sklearn; .*: pip install '\.\[search\]'"
    with pytest.raises(ModuleNotFoundError, match=expected):
        SearchOptions(**options).check(SPACE)
    with pytest.raises(ModuleNotFoundError, match=expected):
        Run().search(tmp_path, **options)


def test_a_latency_budget_that_nothing_meets_is_refused_with_the_least(table):
    least = min(table.profile(genotype.spec()) for genotype in SPACE.all_genotypes())
    with latency_from(table):
        check_feasible(Budget("latency_ms", least), SPACE)
        with pytest.raises(ValueError) as error:
            check_feasible(Budget("latency_ms", least * 0.9), SPACE)
    assert f"at least {least:.2f}"[:-1] in str(error.value) and " ms, " in str(error.value)


class Run:
    """A trained run, as far as a search with made-up accuracies needs it."""

    def __init__(self):
        supernet = types.SimpleNamespace(space=SPACE, weight_arrays=lambda: {"a": np.zeros(3)})
        self.trained = types.SimpleNamespace(supernet=supernet, path=Path("step.safetensors"))

    def search(self, workdir, **options):
        given = {"fine_candidates": 4, "fine_rounds": 1, **options}
        return search_run(
            self.trained,
            types.SimpleNamespace(held_out=range(10)),
            SearchOptions(**given),
            workdir,
            evaluator=TabularEvaluator(noisy),
        )


def test_a_search_under_latency_finds_children_that_meet_it(table, tmp_path):
    path = tmp_path / "table.json"
    table.write(path)
    chosen = Run().search(
        tmp_path,
        budget="latency_ms:0.2,0.3",
        latency_table=str(path),
        strategy="evolution",
        evaluations=20,
        population=10,
    )
    for limit, entry in zip((0.2, 0.3), chosen, strict=True):
        spec = SPACE.genotype(entry["genotype"]).spec()
        singles = blocks_of(spec).values()
        ms = OVERHEAD + sum(made_up_ms(block.spec) for block in singles)
        assert entry["latency_ms"] == pytest.approx(ms)
        assert ms <= limit
        assert entry["budget"] == {"latency_ms": limit}
    assert chosen[0]["accuracy"] <= chosen[1]["accuracy"]


def test_a_device_instead_of_a_table_is_measured_first_into_the_runs_folder(
    table, tmp_path, monkeypatch
):
    from bignas_tf.deploy.block_latency import host

    asked = []

    def measure_table(plan, output):
        asked.append((plan.space, plan.resolutions, plan.quantization, plan.threads, output))
        return table

    monkeypatch.setattr(host, "measure_table", measure_table)
    options = {"device": "host", "quantization": "int8", "latency_threads": 2, "fine_rounds": 0}
    (chosen,) = Run().search(tmp_path, budget="latency_ms:0.3+mmacs:0.2", **options)
    assert asked == [(SPACE, None, "int8", 2, tmp_path / "latency_table.json")]
    spec = SPACE.genotype(chosen["genotype"]).spec()
    assert chosen["latency_ms"] == table.profile(spec) <= 0.3
    assert chosen["mmacs"] == cost.count(spec).mmacs <= 0.2
    assert chosen["name"] == "latency_ms_0.3_mmacs_0.2"


@pytest.mark.parametrize("evaluator", [None, TabularEvaluator(noisy)])
def test_a_run_without_held_out_images_is_refused_before_latency_is_measured(
    tmp_path, monkeypatch, evaluator
):
    monkeypatch.setattr("bignas_tf.deploy.block_latency.host.measure_table", None)  # it would fail
    trained = Run().trained
    trained.recipe = types.SimpleNamespace(held_out=0)
    data, options = (
        types.SimpleNamespace(held_out=None),
        SearchOptions("latency_ms:1", device="host"),
    )
    with pytest.raises(ValueError, match="`held_out` of the recipe must be positive .*Received: 0"):
        search_run(trained, data, options, tmp_path, evaluator=evaluator)


def test_a_search_does_not_go_on_with_another_table(table, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    table.write(first)
    table_of(space_blocks(SPACE).values(), time=lambda s: 1.1 * made_up_ms(s)).write(second)
    options = {"budget": "latency_ms:0.3", "fine_rounds": 0}
    Run().search(tmp_path, latency_table=str(first), **options)
    Run().search(tmp_path, latency_table=str(first), **options)
    with pytest.raises(ValueError, match="made with another checkpoint or latency table"):
        Run().search(tmp_path, latency_table=str(second), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`latency_table` or `device` must be given for latency_ms. Received: neither"),
        ({"device": "phone"}, "`device` must be one of host. Received: 'phone'"),
        (
            {"device": "host", "latency_table": "a"},
            "`device` must be left out with `latency_table`",
        ),
        ({"latency_table": "missing.json"}, "missing.json"),
    ],
)
def test_a_search_refuses_latency_that_nothing_tells(options, message):
    with pytest.raises((ValueError, OSError), match=message):
        SearchOptions("latency_ms:3", **options)


def test_latency_is_looked_up_without_tensorflow(tmp_path):
    path = tmp_path / "table.json"
    table_of(space_blocks(get_space("digits")).values()).write(path)
    code = (
        "import sys; from bignas_tf.search.run_search import SearchOptions;"
        "from bignas_tf.search.latency import latency_from;"
        "from bignas_tf.spaces import get_space; from bignas_tf.search import measure;"
        f"o = SearchOptions('latency_ms:3', latency_table={str(path)!r});"
        "t = o.open_table(get_space('digits'), None);"
        "\nwith latency_from(t): print(measure(get_space('digits').smallest(), 'latency_ms'))"
        "\nprint([name for name in ('tensorflow', 'keras', 'jax') if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_show_adds_milliseconds_of_each_block(table, tmp_path, capsys):
    from bignas_tf.commands import show

    space = get_space("digits")
    every = list(space_blocks(space).values())
    stem = blocks_of(space.smallest().spec())["stem"]
    path = tmp_path / "table.json"
    table_of([block for block in every if block.key != stem.key]).write(path)
    arguments = types.SimpleNamespace(
        recipe=None, space="digits", network="smallest", resolution=None, latency_table=str(path)
    )
    show.main(arguments)
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    written = LatencyTable.read(path)
    spec = space.smallest().spec()
    for name, ms in written.times(spec).items():
        assert lines[name][-1] == f"{ms:.4f}" + "*" * (name == "stem")
    assert lines["total"][-1] == f"{written.profile(spec):.4f}"
    assert lines["*:"][1:3] == ["not", "in"]
