"""What a sweep's file may say, and what is refused before any work."""

import json

import pytest
from commands_fixture import TINY, WARNINGS, assert_refused
from sweep_fixture import FILE, ONE, SET, call, done, eagerly_registered, rows

import bignas_tf.cli as cli
from bignas_tf.commands.sweep import read_plan
from bignas_tf.evaluation import ChildEvaluator
from bignas_tf.sweep.results import COLUMNS
from bignas_tf.sweep.runs import run_sweep
from bignas_tf.training.run_data import load_run_data
from bignas_tf.training.state import load_trained

pytestmark = WARNINGS


@pytest.fixture(autouse=True, scope="module")
def eager_and_tiny_by_name():
    yield from eagerly_registered()


def test_given_children_are_measured_like_the_others(tmp_path):
    middle = TINY.sample(3, seed=2)[-1]
    done(tmp_path, ONE | {"children": {"middle": middle.as_dict()}})
    assert [row["child"] for row in rows(tmp_path)] == ["biggest", "smallest", "middle"]
    row = rows(tmp_path)[-1]
    trained = load_trained(tmp_path / "runs" / "one-seed0")
    data = load_run_data(trained.recipe)
    for split, column in ((data.source.test, "top1"), (data.held_out, "held_out_top1")):
        (score,) = ChildEvaluator(trained.supernet, data.calibration, split).score([middle])
        assert float(row[column]) == score["accuracy"]


def test_the_data_of_the_command_replace_those_of_the_file_but_not_of_a_variant(tmp_path):
    path = tmp_path / "file.json"
    own = {"recipe": "cifar10", "data": "tfds:own", "ema": 0.5}
    content = {"recipe": "digits", "data": "folder:x", "variants": {"all": {}, "own": own}}
    path.write_text(json.dumps(content))
    for data, expected in ((None, "folder:x"), ("tfds:y", "tfds:y")):
        first, second = read_plan(path, data).runs
        assert (first.recipe.name, first.recipe.data) == ("digits", expected)
        assert (second.recipe.name, second.recipe.data) == ("cifar10", "tfds:own")
        assert (second.recipe.ema, dict(second.overrides)) == (
            0.5,
            {"data": "tfds:own", "ema": 0.5},
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "sweep_file.json must be JSON"),
        ('{"recipe": "digits", "variants": {"a": {}, "a": {}}}', "Received: a more than once"),
        ([], "must be a JSON object"),
        ({"recipe": "digits"}, "lacks required keys: variants"),
        (ONE | {"steps": 3}, "unknown keys; .* Received: steps"),
        (
            ONE | {"recipe": "mnist"},
            "`recipe` must be one of cifar10, digits, imagenet, photos. Received: 'mnist'",
        ),
        (ONE | {"variants": {}}, "`variants` must be an object of at least one name"),
        (ONE | {"variants": {"a/b": {}}}, "`variants` must be named with .*'a/b'"),
        (ONE | {"variants": {"a": 3}}, r"`variants\['a'\]` must be an object. Received: 3"),
        (ONE | {"variants": {"a": {"epoch": 3}}}, r"`variants\['a'\]` must be of keys.*'epoch'"),
        (ONE | {"variants": {"a": {"seed": 3}}}, r"`variants\['a'\]` must be of keys.*'seed'"),
        (ONE | {"variants": {"a": {"recipe": "x"}}}, "'a': `recipe` must be one of .*'x'"),
        (ONE | {"variants": {"a": {}, "b": {"epochs": 0}}}, "'b': `epochs` must be an integer.*0"),
        (ONE | {"variants": {"a": {"batch_size": 139}}}, "'a': `batch_size` must be at most .*139"),
        (
            ONE | {"variants": {"a": {}, "b": {"augmentation": {"shift": 8}}}},
            "'b': `shift` with fill 'reflect' must be less than the image's side, 8 pixels. .*8",
        ),
        (ONE | {"variants": {"a": {"optimizer": {"kind": "x"}}}}, "'a': `kind` must be one of"),
        (ONE | {"variants": {"a": {"schedule": {"kind": "x"}}}}, "'a': `kind` must be one of"),
        (ONE | {"variants": {"a": {"data": "x"}}}, "'a': .* must be 'digits', 'folder:PATH'"),
        (ONE | {"set": {"seed": 3}}, "`set` must be of keys among .*'seed'"),
        (ONE | {"set": {"data": "digits"}}, "`set` must be of keys among .*'data'"),
        (ONE | {"set": []}, "`set` must be an object of fields"),
        (ONE | {"seeds": []}, r"`seeds` must be a list of different integers.*\(\)"),
        (ONE | {"seeds": [1, 1]}, "`seeds` must be a list of different integers"),
        (ONE | {"seeds": [-1]}, "`seeds` must be a list of different integers"),
        (ONE | {"seeds": 3}, "`seeds` must be a list of different integers"),
        (ONE | {"data": 3}, "`data` must be a source"),
        (FILE | {"set": SET | {"held_out": 0}}, "'full': `held_out` must be at least 1 where"),
        (ONE | {"variants": {"a": {"teacher": "no/run"}}}, "'a': `teacher` must be .*no/run"),
        (ONE | {"variants": {"a": {"init_from": "no/run"}}}, "'a': `init_from` must be .*no/run"),
        (ONE | {"children": []}, "`children` must be an object"),
        (ONE | {"children": {"a": 3}}, r"`children\['a'\]` must be an object of values by gene"),
        (ONE | {"children": {"smallest": {}}}, "`children` must be named otherwise than biggest"),
        (ONE | {"children": {"labels": {}}}, "`children` must be named otherwise .*labels, file"),
        (ONE | {"select": {"budget": "mmacs:1", "names": "file"}}, "`names` must be none of"),
        (ONE | {"children": {"a": {"depth": 1}}}, "has the genes .*unknown \\['depth'\\]"),
        (ONE | {"select": {"names": "a"}}, "`select` lacks required keys: budget"),
        (ONE | {"select": {"budget": "mmacs:1", "rounds": 3}}, "`select` has unknown keys"),
        (ONE | {"select": {"budget": 3}}, "`budget` must be a metric and limits.*3"),
        (ONE | {"select": {"budget": "macs:1"}}, "`metric` must be one of mmacs"),
        (ONE | {"select": {"budget": "mmacs:1", "names": "a,b"}}, "`names` must be 1 different"),
        (ONE | {"select": {"budget": "mmacs:1", "names": ["a"]}}, "`names` must be words"),
        (ONE | {"select": {"budget": "mmacs:1", "names": "biggest"}}, "`names` must be none of"),
        (ONE | {"select": {"budget": "mmacs:1", "strategy": "x"}}, "`strategy` must be one of"),
        (
            ONE | {"select": {"budget": "mmacs:1", "fine_rounds": -1}},
            "`fine_rounds` must be an int",
        ),
        (
            ONE | {"select": {"budget": "mmacs:1", "workers": 2}},
            "`select` has unknown keys; allowed are budget, .*Received: workers",
        ),
        (
            ONE | {"select": {"budget": "mmacs:1", "evaluations": 50}},
            "`evaluations` must be left out unless `strategy` is random or evolution or nsga2.*50",
        ),
        (
            ONE | {"select": {"budget": "mmacs:1", "strategy": "random", "fine_rounds": 1}},
            "`fine_rounds` must be left out unless `strategy` is coarse_to_fine",
        ),
        (
            ONE | {"select": {"budget": "mmacs:1", "quantization": "int8"}},
            "`quantization` must be left out without `device`",
        ),
        (
            ONE | {"select": {"budget": "latency_ms:1", "device": "host"}},
            "`device` must be left out in a sweep, whose runs share one `latency_table`",
        ),
        (ONE | {"select": {"budget": "mmacs:1e-9"}}, "'one': `budget` must be at least"),
    ],
)
def test_a_bad_file_is_refused_before_any_work(tmp_path, content, message):
    assert_refused(call(tmp_path, content), f"^error: .*{message}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("steps", [0, -1, 2.0, True, "2"])
def test_a_bad_number_of_steps_per_call_is_refused_before_any_work(tmp_path, steps):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(ONE))
    with pytest.raises(ValueError, match="^`steps_per_call` must be an integer of at least 1. "):
        run_sweep(read_plan(path), tmp_path / "runs", loop_options={"steps_per_call": steps})
    assert not (tmp_path / "runs").exists()


def test_a_missing_file_and_results_of_something_else_are_refused(tmp_path):
    argv = ["bignas", "sweep", f"--file={tmp_path / 'missing'}", f"--workdir={tmp_path}"]
    with pytest.raises(SystemExit) as stop:
        cli._main(cli._parse(argv))
    assert stop.value.code == 2
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "results.csv").write_text("a,b\n1,2\n")
    assert_refused(call(tmp_path, ONE), rf"results.csv` must be a CSV of {COLUMNS[0]}, ")
    assert_refused(call(tmp_path, ONE, "--remat"), "`remat` must be left out without --backend=jax")
