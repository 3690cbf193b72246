"""`bignas sweep` under JAX: a run after another in one process, and what it refuses."""

import csv

import jax
import pytest
from run_case import RECIPE

from bignas_tf import cli
from bignas_tf.sweep.plan import PlannedRun, SweepPlan, check_plan
from bignas_tf.training import logs, recipe

# Four steps: two calls of a program, which compiles faster without random children.
SHORT = RECIPE.replace(epochs=1, random_children=0)


@pytest.fixture
def all_programs_on_disk():
    """A sweep forgets what it compiled after each run; the second run reads it again."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 0.0)
    yield
    jax.config.update(name, before)


@pytest.fixture
def sweep(tmp_path, monkeypatch, all_programs_on_disk):
    """Calls the command; returns the bytes of its CSV."""
    monkeypatch.setattr(recipe, "get_recipe", lambda name: SHORT)
    monkeypatch.setattr(logs, "_say_once", lambda message: None)  # that TensorBoard is missing
    (tmp_path / "file.json").write_text(
        '{"recipe": "tiny", "variants": {"one": {}}, "seeds": [0, 1]}'
    )
    arguments = ["--backend=jax", "--steps_per_call=2", f"--workdir={tmp_path / 'runs'}"]
    argv = ["bignas", "sweep", f"--file={tmp_path / 'file.json'}", *arguments]

    def call():
        with pytest.raises(SystemExit) as stop:
            cli._main(cli._parse(argv))
        assert not stop.value.code
        return (tmp_path / "runs" / "results.csv").read_bytes()

    return call


@pytest.mark.slow
def test_two_seeds_are_trained_and_measured_once(sweep):
    first = sweep()
    rows = list(csv.DictReader(first.decode().splitlines()))
    found = [(row["variant"], row["seed"], row["child"]) for row in rows]
    assert found == [("one", s, c) for s in "01" for c in ("biggest", "smallest")]
    device = jax.devices()[0]
    for row in rows:
        assert (row["status"], row["steps"], row["backend"]) == ("finished", "4", "jax")
        assert row["device"].startswith(f"{device.platform} ")
        assert row["device"].endswith(f" x{jax.local_device_count()}") == (
            jax.local_device_count() > 1
        )
        assert 0 <= float(row["top1_low"]) <= float(row["top1"]) <= float(row["top1_high"]) <= 1
        assert 0 <= float(row["held_out_top1"]) <= 1
        assert float(row["train_seconds"]) > 0
    assert sweep() == first


def test_a_batch_that_the_devices_cannot_share_is_refused_before_any_run(monkeypatch):
    plan = SweepPlan((PlannedRun("one", 0, SHORT, {}),))
    message = "'one': `batch_size` must be a multiple of the number of devices, 3. Received: 32"
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    with pytest.raises(ValueError, match=message):
        check_plan(plan)
    check_plan(plan, {"devices": jax.local_devices()[:1]})
