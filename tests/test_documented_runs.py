"""What pages say to do with a run: their Python on a tiny one, and the plan of a sweep."""

import re
from pathlib import Path

import commands_fixture
import keras
import numpy as np
import pytest
from commands_fixture import TINY, WARNINGS

from bignas_tf.commands.sweep import read_plan
from bignas_tf.evaluation import ChildEvaluator, prepared
from bignas_tf.search import measure, parse_budgets
from bignas_tf.search.search_options import SearchOptions
from bignas_tf.training.recipe import get_recipe
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.state import load_trained

pytestmark = WARNINGS
ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SEARCHES = {  # budgets of commands on the run that the pages make, but for milliseconds
    re.sub(r"latency_ms:[^+]*\+?", "", budget)
    for page in PAGES
    for budget in re.findall(
        r"^ *bignas select +--workdir=runs/mine +--budget=(\S+)",
        page.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
} - {""}


@pytest.fixture(autouse=True, scope="module")
def tiny_by_name():
    yield from commands_fixture.registered()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return commands_fixture.train(tmp_path_factory)


def blocks(page, language):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_python_of_a_page_saves_the_smallest_child_with_its_statistics(
    page, trained, tmp_path, monkeypatch
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(trained)
    monkeypatch.chdir(tmp_path)
    exec(blocks(page, "python")[0], {"__name__": "page"})  # noqa: S102 - our own documentation
    child = keras.models.load_model(tmp_path / "child.keras")
    run = load_trained(trained)
    data = load_run_data(run.recipe)
    smallest = TINY.smallest()
    evaluator = ChildEvaluator(run.supernet, data.calibration, data.held_out)
    images = prepared(data.held_out, smallest["resolution"])
    np.testing.assert_allclose(
        child.predict(images, verbose=0), evaluator.logits(smallest), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("budget", sorted(SEARCHES))
def test_every_budget_of_the_pages_can_be_met_by_the_run_that_they_make(budget):
    space = get_recipe("photos").build_space(classes=5)
    SearchOptions.given({"budget": budget}).check(space)
    largest = measure(space.biggest(), "mmacs")
    assert all(part.limit < largest for b in parse_budgets(budget) for part in b.parts)
    with pytest.raises(ValueError, match="`budget` must be at least"):
        SearchOptions.given({"budget": "mmacs:5"}).check(space)


def test_the_sweep_of_the_docs_is_a_plan_of_nine_runs_whose_budgets_their_space_can_meet(tmp_path):
    (content,) = blocks("docs/training.md", "json")
    path = tmp_path / "ablations.json"
    path.write_text(content)
    plan = read_plan(path)
    variants = ("full", "no_distillation", "one_path")
    assert [run.name for run in plan.runs] == [f"{v}-seed{s}" for s in range(3) for v in variants]
    for run in plan.runs:
        assert (run.recipe.space, run.recipe.epochs) == ("cifar", 4)
        plan.select.check(run.recipe.build_space())
    assert list(plan.select.children()) == ["s", "m", "l", "xl"]
    assert [run.recipe.sandwich for run in plan.runs[:3]] == [True, True, False]
    assert [run.recipe.distillation for run in plan.runs[:3]] == [True, False, True]
