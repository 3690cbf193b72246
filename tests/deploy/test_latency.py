import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from bignas_tf.deploy import latency_worker
from bignas_tf.deploy.interpreter import load_interpreter
from bignas_tf.deploy.latency import Latency, measure, write_csv


def test_the_figures_of_a_file_are_those_of_its_runs(float_file):
    ballast = np.ones(400_000_000, np.uint8)  # the child's memory must not include ours
    first, second = measure([float_file, float_file], warmup=1, runs=4, rounds=3, progress=False)
    for latency in (first, second):
        assert 0 < latency.min_ms <= latency.median_ms <= latency.p95_ms
        assert latency.min_ms <= latency.mean_ms
        assert latency.runs == 12
        assert (latency.delegate, latency.delegate_parts > 0) == ("xnnpack", True)
        assert 10 < latency.peak_rss_mb < ballast.nbytes / 1e6
        assert latency.file_bytes == os.stat(float_file).st_size


def test_without_a_delegate_no_part_is_delegated(float_file):
    [latency] = measure([float_file], delegate="none", warmup=0, runs=1, rounds=1)
    assert (latency.delegate, latency.delegate_parts) == ("none", 0)


def test_files_take_turns(float_file, monkeypatch):
    from bignas_tf.deploy import latency

    turns = []

    class Worker:
        def __init__(self, path, process, log):
            self.path, self.nanoseconds, self.parts, self.peak_rss_mb = path, [], 1, 1.0

        def round(self, warmup, runs):
            turns.append(len(self.path))
            self.nanoseconds += [1_000_000] * runs

    monkeypatch.setattr(latency, "_Worker", Worker)
    other = f"{float_file.parent}/./{float_file.name}"
    base = len(str(float_file))
    results = measure([float_file, other], runs=7, rounds=3)
    assert turns == [base, base + 2] * 3
    assert [result.runs for result in results] == [21, 21]
    assert results[0].median_ms == 1.0


def test_timing_leaves_out_the_warmup(float_file):
    calls = []
    interpreter = load_interpreter(float_file)

    class Counting:
        def invoke(self):
            calls.append(interpreter.invoke())

    durations = latency_worker.timed(Counting(), warmup=3, runs=5)
    assert (len(calls), len(durations)) == (8, 5)
    assert min(durations) > 0


def test_the_worker_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys, bignas_tf.deploy.latency_worker, ai_edge_litert.interpreter;"
        "sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0  # noqa: S603 - our code


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": 0}, "`runs` must be at least 1. Received: 0"),
        ({"warmup": -1}, "`warmup`"),
        ({"threads": 0}, "`threads`"),
        ({"delegate": "gpu"}, "`delegate`"),
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


def test_the_csv_repeats_the_conditions_in_each_row(tmp_path):
    path = tmp_path / "latency.csv"
    latency = Latency("a,b.tflite", 1.23456, 2.0, 1.0, 1.5, 100, 5, 5, 1, "xnnpack", 1, 47.0, 9)
    write_csv([latency, latency], path, {"cpu": "a fast one", "date": "today"})
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["cpu"] for row in rows] == ["a fast one"] * 2
    assert (rows[0]["path"], rows[0]["median_ms"]) == ("a,b.tflite", "1.2346")
    with pytest.raises(FileExistsError):
        write_csv([latency], path)
    write_csv([latency], path, overwrite=True)
    assert {"cpu", "cores", "date", "ai_edge_litert"} < set(
        path.read_text().split("\n")[0].split(",")
    )
