import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bignas_tf.deploy.interpreter import load_interpreter
from bignas_tf.deploy.latency import (
    Latency,
    TimingError,
    host_conditions,
    measure,
    process,
    profiler,
    table,
    worker,
    write_csv,
)
from bignas_tf.deploy.latency.profile import profile, summary, write_profiles
from bignas_tf.deploy.latency.spread import median_interval


def test_the_figures_of_a_file_are_those_of_its_runs(float_file):
    ballast = np.ones(400_000_000, np.uint8)  # the child's memory must not include ours
    first, second = measure([float_file, float_file], warmup=1, runs=4, rounds=3, progress=False)
    for latency in (first, second):
        assert 0 < latency.min_ms <= latency.median_ms <= latency.p95_ms
        assert latency.min_ms <= latency.mean_ms
        assert latency.runs == 12
        assert len(latency.round_medians_ms) == 3
        assert latency.min_ms <= min(latency.round_medians_ms)
        assert (latency.delegate, latency.delegate_parts > 0) == ("xnnpack", True)
        assert 10 < latency.peak_rss_mb < ballast.nbytes / 1e6
        assert latency.file_bytes == os.stat(float_file).st_size


def test_without_a_delegate_no_part_is_delegated(float_file):
    [latency] = measure([float_file], delegate="none", warmup=0, runs=1, rounds=1)
    assert (latency.delegate, latency.delegate_parts) == ("none", 0)


def test_files_take_turns(float_file, monkeypatch):
    turns = []

    class Worker:
        def __init__(self, path, process, log, limit):
            self.path, self.nanoseconds, self.parts, self.peak_rss_mb = path, [], 1, 1.0

        def round(self, warmup, runs):
            turns.append(len(self.path))
            self.nanoseconds += [1_000_000] * runs

    monkeypatch.setattr(process, "Worker", Worker)
    other = f"{float_file.parent}/./{float_file.name}"
    base = len(str(float_file))
    results = measure([float_file, other], runs=7, rounds=3)
    assert turns == [base, base + 2] * 3
    assert [result.runs for result in results] == [21, 21]
    assert results[0].median_ms == 1.0


class Rounds:
    """A worker whose rounds have the given medians, the last one for ever."""

    medians = []

    def __init__(self, path, process, log, limit):
        self.path, self.nanoseconds, self.parts, self.peak_rss_mb = path, [], 1, 1.0
        self.left = list(self.medians)

    def round(self, warmup, runs):
        median = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        self.nanoseconds += [int(median * 1e6)] * runs


def test_rounds_go_on_until_the_median_is_known_to_the_spread(float_file, monkeypatch):
    monkeypatch.setattr(process, "Worker", Rounds)
    monkeypatch.setattr(Rounds, "medians", [9.0, 1.0, 10.0])
    [latency] = measure([float_file], runs=1, spread=0.05, progress=False)
    # 9, 1 and then 10 for ever: with 9 rounds in all the second smallest is still 9, with
    # 12 the third, whose rank the interval then ends at, is 10.
    assert (latency.rounds, latency.spread, latency.steady) == (12, 0.0, True)


def test_a_median_that_stays_unknown_is_said_so(float_file, monkeypatch):
    monkeypatch.setattr(process, "Worker", Rounds)
    monkeypatch.setattr(Rounds, "medians", [9.0, 11.0, 10.0])
    [latency] = measure([float_file], runs=1, spread=0.05, seconds=0, progress=False)
    assert (latency.rounds, latency.spread, latency.steady) == (6, pytest.approx(0.1), False)
    assert "not steady: model.tflite" in table([latency])
    assert "10.0%" in table([latency])
    [latency] = measure([float_file], runs=1, rounds=6, progress=False)
    assert (latency.spread, latency.steady) == (pytest.approx(0.1), None)
    assert "not steady" not in table([latency])
    [latency] = measure([float_file], runs=1, rounds=5, progress=False)
    assert latency.spread is None


@pytest.mark.parametrize("count", [6, 8, 9, 15, 40, 151])
def test_the_interval_of_a_median_ends_at_the_ranks_of_the_binomial_distribution(count):
    stats = pytest.importorskip("scipy.stats")
    low, high = median_interval(list(range(count)))
    assert low + high == count - 1
    coverage = 1 - 2 * stats.binom.cdf(low, count, 0.5)
    assert coverage >= 0.95 > 1 - 2 * stats.binom.cdf(low + 1, count, 0.5)


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = [median_interval(random.lognormal(size=9).tolist()) for _ in range(4000)]
    share = np.mean([low <= 1.0 <= high for low, high in found])
    assert share == pytest.approx(0.9609, abs=0.01)  # 1 - 2 * (1 + 9) / 2**9
    assert median_interval([1.0] * 5) is None


def test_a_profile_names_the_operators_that_ran_and_tells_their_times(float_file):
    plain = profile(float_file, delegate="none", runs=20)
    kinds = [operator.kind for operator in plain.operators]
    assert kinds.count("CONV_2D") == 3 and kinds.count("DEPTHWISE_CONV_2D") == 1
    ran = {details["op_name"] for details in load_interpreter(float_file)._get_ops_details()}
    assert set(kinds) <= ran
    assert sum(operator.ms for operator in plain.operators) > 0 < plain.total_ms
    fast = profile(float_file, runs=20)
    assert any("Conv" in operator.kind for operator in fast.operators)
    assert "operators" in summary(fast)


def test_the_operators_of_all_runs_take_no_longer_than_these_runs(float_file):
    model = profiler._Model(str(float_file), threads=1, delegate="none")
    model.invoke()
    start = time.perf_counter()
    said = model.profiled(runs=20)
    milliseconds = (time.perf_counter() - start) * 1e3  # of a busy machine too
    assert 0 < 20 * sum(operator.ms for operator in profiler.parse_profile(said)) <= milliseconds


def test_a_profile_refuses_what_it_cannot_run(float_file, tmp_path):
    with pytest.raises(ValueError, match="not a TFLite file"):
        profile(__file__)
    with pytest.raises(ValueError, match="`runs` must be at least 1. Received: 0"):
        profile(float_file, runs=0)
    with pytest.raises(ValueError, match="must differ in name"):
        write_profiles([float_file, float_file], tmp_path)


def test_a_library_without_the_profiler_is_named():
    runtime = profiler._LiteRT()
    with pytest.raises(RuntimeError, match="has no LiteRtNothing; 2.3 has"):
        runtime.call("Nothing")


def test_timing_leaves_out_the_warmup(float_file):
    calls = []
    interpreter = load_interpreter(float_file)

    class Counting:
        def invoke(self):
            calls.append(interpreter.invoke())

    durations = worker.timed(Counting(), warmup=3, runs=5)
    assert (len(calls), len(durations)) == (8, 5)
    assert min(durations) > 0


def test_the_worker_imports_neither_tensorflow_nor_keras_nor_what_measures():
    code = (
        "import sys, bignas_tf.deploy.latency.worker, ai_edge_litert.interpreter;"
        "others = {'tensorflow', 'keras', 'bignas_tf.deploy.latency.host'};"
        "sys.exit(bool(others & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0  # noqa: S603 - our code


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": 0}, "`runs` must be at least 1. Received: 0"),
        ({"warmup": -1}, "`warmup`"),
        ({"threads": 0}, "`threads`"),
        ({"delegate": "gpu"}, "`delegate`"),
        ({"spread": 0.0}, "`spread` must be between 0 and 1. Received: 0.0"),
        ({"seconds": -1.0}, "`seconds`"),
        ({"limit": 0.0}, "`limit` must be above 0, .* Received: 0.0"),
        ({"paths": []}, "`paths`"),
        ({"paths": [__file__]}, "not a TFLite file"),
    ],
)
def test_wrong_arguments_are_refused(changes, message, float_file):
    with pytest.raises(ValueError, match=message):
        measure(**{"paths": [float_file], "progress": False, **changes})


def test_a_worker_that_dies_is_reported_with_its_last_words(float_file, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(RuntimeError, match="ended with status"):
        measure([float_file], progress=False)


@pytest.fixture
def stuck(float_file, tmp_path, monkeypatch):
    """A file whose process a signal hits before its second round; another is as it was."""
    path = tmp_path / "stuck.tflite"
    shutil.copyfile(float_file, path)
    round_of = process.Worker.round

    def hit(worker, warmup, runs):
        if worker.path == str(path) and worker.nanoseconds:
            if hit.by == signal.SIGSTOP:  # a busy machine takes a while to end a process
                worker.limit = 0.5
            worker.process.send_signal(hit.by)
        round_of(worker, warmup, runs)

    monkeypatch.setattr(process.Worker, "round", hit)
    return path, hit


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSTOP, "timing .*stuck.tflite: no answer within 0.5 s"),
        (signal.SIGKILL, "timing .*stuck.tflite ended with status -9"),
    ],
)
def test_a_file_that_hangs_or_dies_is_named_and_the_others_are_timed(
    number, words, stuck, float_file
):
    path, hit = stuck
    hit.by = number
    with pytest.raises(TimingError, match=words) as caught:
        measure([path, float_file], warmup=0, runs=3, rounds=4, progress=False)
    [latency] = caught.value.latencies
    assert (latency.path, latency.runs) == (str(float_file), 12)


def test_a_file_that_hangs_while_it_is_loaded_is_named(float_file):
    with pytest.raises(TimingError, match=r"model.tflite: no answer within 0.01 s") as late:
        measure([float_file], limit=0.01, progress=False)
    assert late.value.latencies == []


def test_the_command_keeps_what_it_measured_of_the_other_files(
    stuck, float_file, tmp_path, monkeypatch, capsys
):
    from bignas_tf import cli

    path, hit = stuck
    hit.by = signal.SIGKILL
    output, profiles = tmp_path / "a.csv", tmp_path / "profiles"
    flags = [f"--model={path},{float_file}", "--rounds=2", "--runs=2", f"--csv={output}"]
    with pytest.raises(SystemExit) as ended:
        cli._main(cli._parse(["bignas", "benchmark", *flags, f"--profile={profiles}"]))
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.err.startswith("error: timing ") and "stuck.tflite" in said.err
    assert said.err.count("\n") == 1
    assert [row["path"] for row in csv.DictReader(output.read_text().splitlines())] == [
        str(float_file)
    ]
    assert os.listdir(profiles) == ["model.profile.csv"]


def test_the_csv_repeats_the_conditions_in_each_row(tmp_path):
    path = tmp_path / "latency.csv"
    latency = Latency("a,b.tflite", 1.23456, 2.0, 1.0, 1.5, 100, 5, 5, 1, "xnnpack", 1, 47.0, 9)
    write_csv([latency, latency], path, {"cpu": "a fast one", "date": "today"})
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["cpu"] for row in rows] == ["a fast one"] * 2
    assert (rows[0]["path"], rows[0]["median_ms"]) == ("a,b.tflite", "1.2346")
    with pytest.raises(FileExistsError):
        write_csv([latency], path, {})
    write_csv([latency], path, host_conditions(), overwrite=True)
    assert {"cpu", "cores", "date", "ai_edge_litert"} < set(
        path.read_text().split("\n")[0].split(",")
    )


@pytest.mark.parametrize(
    ("times", "expected", "verdict"),
    [
        ([16, 8, 8, 32, 8, 8.5], (0.8, 0.85), "met"),
        ([16, 8, 8, 32, 8, 11], (0.8, 1.1), "not decided"),
        ([19, 9.5, 9.5, 38, 9.5, 11], (0.95, 1.1), "missed"),
    ],
)
def test_the_zoo_is_judged_by_ratios_of_rounds(times, expected, verdict, benchmark):
    zoo_latency = benchmark("zoo_latency")
    # The machine was slow in some rounds, for both files alike.
    ratio = zoo_latency.ratio(times, [20, 10, 10, 40, 10, 10])
    assert (ratio["ratio_low"], ratio["ratio_high"]) == pytest.approx(expected)
    assert ratio["ratio"] == pytest.approx(expected[0])
    row = {
        **{"model": "BigNASModelM", "activation": "swish", "quantization": "float32"},
        **{"threads": 1, "mmacs": 1, "median_ms": 1, "spread": 0.1, "reference": "EfficientNetB0"},
        **ratio,
    }
    assert zoo_latency.line(row).endswith(f"of EfficientNetB0; aim 0.90: {verdict}")
    assert "aim" not in zoo_latency.line({**row, "threads": 2})
