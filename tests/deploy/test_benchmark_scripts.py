"""What benchmarks refuse before they work for minutes, and what they make of stopped calls."""

import csv

import pytest
from absl import app, flags


@pytest.mark.parametrize("name", ["elastic_step", "zoo_candidates"])
def test_stray_arguments_are_refused(benchmark, name):
    with pytest.raises(app.UsageError, match="unknown argument 'stray'"):
        benchmark(name).main(["", "stray"])


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("backends", "--json"),
        ("evaluation", "--json"),
        ("latency_prediction", "--json"),
        ("latency_prediction", "--plot"),
        ("quantizations", "--csv"),
        ("search_tabular", "--plot"),
        ("zoo_candidates", "--json"),
    ],
)
def test_an_output_that_could_not_be_written_is_refused_at_once(benchmark, name, given, tmp_path):
    module = benchmark(name)
    required = {"--json": tmp_path / "a.json", "--csv": tmp_path / "a.csv"}
    required |= {f"--{flag}": "x" for flag in ("table", "resolution", "workdir")}
    required |= {"--resolution": 8, given: tmp_path / "missing" / "file"}
    flags.FLAGS(["", *(f"{flag}={value}" for flag, value in required.items())], known_only=True)
    with pytest.raises(FileNotFoundError, match="folder does not exist. Received: .*missing"):
        module.main([""])


def test_a_file_that_a_stopped_call_did_not_time_has_no_spread_in_the_table(benchmark, tmp_path):
    module = benchmark("quantizations")
    path = tmp_path / "a.csv"
    timed = {"child": "s", "quantization": "float32", "top1": "0.9", "bytes": "5000"}
    timed |= {"median_ms": "1.5", "spread": "0.012"}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, module.COLUMNS)
        writer.writeheader()
        writer.writerow(timed)
        writer.writerow(timed | {"quantization": "int8", "median_ms": "", "spread": ""})
    *_, first, second = module.Table(path).lines()
    assert first == "| s | float32 | 90.00 % |  | 5 | 1.5 | 1.2 % |  |"
    assert second == "| s | int8 | 90.00 % |  | 5 |  |  |  |"
