"""The benchmarks of training steps and of reading, on a clock that goes one second a reading."""

import json
import re
import types

import pytest
import tensorflow as tf
from absl import app, flags

from bignas_tf.spaces import MBConvSpace, Stage, catalog

SPACE = MBConvSpace(
    name="by_hand",
    resolution_choices=(8,),
    stem_widths=(4,),
    stem_strides=1,
    stages=(Stage((4, 8), (1,), (3,), (2,), 1),),
    head_widths=(8,),
    classes=3,
    input_channels=1,
)
PIXELS = 8 * 8
# By kind, smallest child: how many, multiply-accumulates, values read and written, of one image.
BY_HAND = {
    "Conv 3x3": (1, 9 * 1 * 4 * PIXELS, 1 * PIXELS, 4 * PIXELS),
    # Expansion, projection, head.
    "Conv 1x1": (3, 3 * 4 * 8 * PIXELS, (4 + 8 + 4) * PIXELS, (8 + 4 + 8) * PIXELS),
    "DepthwiseConv 3x3": (1, 9 * 8 * PIXELS, 8 * PIXELS, 8 * PIXELS),
    "Dense": (1, 8 * 3, 8, 3),
    "BatchNorm": (5, 0, (4 + 8 + 8 + 4 + 8) * PIXELS, (4 + 8 + 8 + 4 + 8) * PIXELS),
    "Activation swish": (4, 0, (4 + 8 + 8 + 8) * PIXELS, (4 + 8 + 8 + 8) * PIXELS),
    "GlobalPool": (1, 0, 8 * PIXELS, 8),
    "Add": (1, 0, 2 * 4 * PIXELS, 4 * PIXELS),
}
SMALLEST = sum(macs for _, macs, _, _ in BY_HAND.values())
# Wider by 4: projection and head, and a shortcut convolution.
BIGGEST = SMALLEST + (8 * 4 + 4 * 8 + 4 * 8) * PIXELS


@pytest.fixture(autouse=True)
def eager_and_by_name(monkeypatch):
    monkeypatch.setitem(catalog.SPACES, SPACE.name, lambda: SPACE)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def timed(benchmark, monkeypatch):
    """Imports a benchmark whose clocks, of the wall and of the process, go by readings."""

    def imports(name):
        module, readings = benchmark(name), {"perf_counter": 0, "process_time": 0}

        def reads(clock):
            def read():
                readings[clock] += 1
                return float(readings[clock])

            return read

        clocks = types.SimpleNamespace(**{clock: reads(clock) for clock in readings})
        monkeypatch.setattr(module, "time", clocks)
        return module

    return imports


def measured(module, path, *given):
    flags.FLAGS(["", f"--space={SPACE.name}", f"--json={path}", *given], known_only=True)
    module.main([""])
    return json.loads(path.read_text())


def test_throughput_and_traffic_follow_from_counts_by_hand(timed, tmp_path, monkeypatch, capsys):
    module = timed("train_throughput")
    # So that the machine does 2**19 operations a second, and moves as many bytes.
    monkeypatch.setattr(module, "MATRIX", 2**6)
    monkeypatch.setattr(module, "COPIED", 2**16)
    given = ("--resolution=8", "--batch=2", "--rounds=1")
    found = measured(module, tmp_path / "found.json", *given)
    assert found["machine"] == {"gflops": 2**19 / 1e9, "gbytes_per_s": 2**19 / 1e9}
    wholes = [
        (genotype, kind)
        for genotype in ("smallest", "biggest")
        for kind in ("supernet", "recomputed", "standalone")
    ]
    assert [(row["genotype"], row["as"]) for row in found["children"]] == wholes
    printed = re.findall(r"^(\w+) +(\w+) +1000\.0 ms +\S+ GFLOP/s$", capsys.readouterr().out, re.M)
    assert printed == wholes
    assert (SMALLEST, BIGGEST) == (13080, 19224)
    for row in found["children"]:
        macs = {"smallest": SMALLEST, "biggest": BIGGEST}[row["genotype"]]
        assert row["milliseconds"] == 1000
        # Two operations of each, three times: forward, and two products backward.
        assert row["gflops"] == pytest.approx(2 * 3 * macs * 2 / 1e9)
    rows = {row["kind"]: row for row in found["by_kind"]["smallest"]}
    assert rows.keys() == BY_HAND.keys()
    total = sum(count for count, *_ in BY_HAND.values())
    for kind, (count, macs, read, written) in BY_HAND.items():
        row = rows[kind]
        assert (row["ops"], row["milliseconds"]) == (count, 1000 * count)
        assert row["share"] == pytest.approx(count / total)
        operations = 2 * 3 * macs * 2
        assert row["gflops"] == pytest.approx(operations / count / 1e9)
        values = read + written if kind == "Add" else 3 * read + 2 * written
        traffic = 4 * 2 * values
        assert row["gbytes_per_s"] == pytest.approx(traffic / count / 1e9)
        least = max(operations, traffic) / 2**19  # which of the two is the same in all of a kind
        assert row["of_the_roofline"] == pytest.approx(least / count)


def test_a_short_op_is_timed_over_many_calls(timed, monkeypatch):
    module = timed("train_throughput")
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    calls = []

    def step():
        calls.append(None)
        now[0] += 0.01

    assert module._median_seconds(step, 3) == pytest.approx(0.01)
    assert len(calls) == 1 + 1 + 3 * 5  # runs of 50 ms


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_reading_and_waiting_are_counted_by_image_and_by_step(timed, tmp_path, monkeypatch):
    module = timed("input_pipeline")
    batches, loop, read, steps = module._batches, module._loop, [], []

    def counted_batches(plan):
        for batch in batches(plan):
            read.append((plan.policy, batch["images"].shape))
            yield batch

    def counted_loop(*arguments):
        made = loop(*arguments)
        train = made.train
        made.train = lambda chunk, step: steps.append(step) or train(chunk, step)
        return made

    monkeypatch.setattr(module, "READ_AHEAD", 1)
    monkeypatch.setattr(module, "_batches", counted_batches)
    monkeypatch.setattr(module, "_loop", counted_loop)
    given = ("--files=64", "--image_size=12", "--batch=3", "--steps=2")
    found = measured(module, tmp_path / "found.json", *given, "--train_batch=4", "--train_steps=2")
    assert list(found["reading"]) == list(module.POLICIES)
    for row in found["reading"].values():  # 2 batches of 3 images in one second of each clock
        assert row["images_per_second"] == 6
        assert row["cpu_milliseconds_per_image"] == pytest.approx(1000 / 6)
    assert [shape for _, shape in read] == [(3, 12, 12, 1)] * (2 + 2) * len(module.POLICIES)
    assert len({policy for policy, _ in read}) == len(module.POLICIES)
    # One on what was read ahead, two timed ones, then without reading one untimed and the same two.
    assert steps == [0, 1, 2, 1, 1, 2]
    assert found["training"] == {
        "steps": 2,
        "images_per_second": 2.0,
        "seconds_per_step": 2.0,
        "share_waiting": 0.5,
        "seconds_per_step_without_reading": 0.5,
        "share_of_reading": 0.75,
    }


@pytest.mark.parametrize("name", ["input_pipeline", "train_throughput"])
def test_stray_arguments_are_refused(benchmark, name):
    with pytest.raises(app.UsageError, match="unknown argument 'smallest'"):
        benchmark(name).main(["", "smallest"])
