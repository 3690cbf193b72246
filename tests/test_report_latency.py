"""Latency predicted and measured, as the report shows it."""

import csv
import json

import numpy as np
import pytest
from report_fixture import (
    CHILDREN,
    dump,
    genotype,
    page_of,
    timing,
    write_minimal_run,
    write_run,
    write_selected,
)

from bignas_tf.report import ReportError, write_report
from bignas_tf.report.inputs import read_run
from bignas_tf.report.latency_plot import draw_latency
from bignas_tf.report.predictions import read_predictions
from bignas_tf.report.tables import NOTHING, files_table
from bignas_tf.search.latency_agreement import agreement

ROWS = [
    {
        "genotype": genotype(8),
        "predicted_ms": predicted,
        **{f"table_{n}_ms": ms for n, ms in enumerate(table, start=1)},
        **{f"benchmark_{n}_ms": ms for n, ms in enumerate(benchmark, start=1)},
        "unmeasured_blocks": 0,
    }
    for predicted, table, benchmark in (
        (1.0, (1.0, 1.0), (1.2, 1.3)),
        (2.2, (1.9, 2.1), (2.4, 2.6)),
        (2.1, (2.9, 3.1), (3.3, 3.7)),
        (4.0, (3.9, 4.1), (5.0, 5.0)),
    )
]
# By hand: 0, 10, 30 and 0 % off; of six pairs one is in the wrong order.
TABLES = "mean error 10.0%, bias -5.0%, Kendall's tau 0.667 (two measurements: 1.000,"


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "genotype": json.dumps(row["genotype"])} for row in rows)
    return path


def test_agreement_is_that_of_predictions_with_the_mean_of_two_measurements():
    found = agreement([1.0, 3.0], [[1.0, 2.0], [3.0, 2.0]])
    assert found["mean_error"] == pytest.approx(0.5)
    assert found["largest_error"] == pytest.approx(0.5)
    assert found["bias"] == pytest.approx(0.0)
    assert found["noise_error"] == pytest.approx(1 / 3)
    one = agreement([1.0, 3.0], [[2.0, 2.0]])
    assert one == {"mean_error": 0.5, "largest_error": 0.5, "bias": 0.0, "kendall_tau": 0.0}


@pytest.mark.parametrize("kind", ["inside", "csv", "json"])
def test_the_page_draws_predicted_latency_against_measured(tmp_path, kind):
    write_minimal_run(tmp_path)
    assert "predicted and measured" not in page_of(tmp_path).text
    given = {}
    if kind == "json":
        dump(tmp_path / "prediction.json", {"rows": ROWS})
        given = {"latency_prediction": tmp_path / "prediction.json"}
    else:
        name = "latency_prediction.csv" if kind == "inside" else "elsewhere.csv"
        path = write_csv(tmp_path / name, ROWS)
        given = {} if kind == "inside" else {"latency_prediction": path}
    text = " ".join(page_of(tmp_path, **given).text.split())
    assert "Latency, predicted and measured" in text
    assert "4 children that the table of blocks never saw" in text
    assert f"Measured as in tables: {TABLES}" in text
    assert "Measured as bignas benchmark does: mean error" in text
    assert "A bar joins the two measurements of a child." in text


def test_every_child_is_a_point_at_its_two_latencies(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, *a, **k: drawn.append(a) or plot(self, *a, **k))
    draw_latency(read_predictions(write_csv(tmp_path / "rows.csv", ROWS)))
    points = [(x, y) for x, y, style in (a for a in drawn if len(a) == 3) if style == "o"]
    means = {
        way: [np.mean([row[f"{way}_{n}_ms"] for n in (1, 2)]) for row in ROWS]
        for way in ("table", "benchmark")
    }
    predicted = [row["predicted_ms"] for row in ROWS]
    for way in means:
        assert any(
            np.allclose(x, means[way]) and np.allclose(y, predicted)
            for x, y in points
            if len(x) == len(ROWS)
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"predicted_ms": "fast"}, "line 2: `predicted_ms` must be a number"),
        ({"table_1_ms": 0}, "line 2: `table_1_ms` must be above 0"),
        ({"benchmark_1_ms": None, "benchmark_2_ms": None}, "line 2: `benchmark_1_ms`"),
    ],
)
def test_a_damaged_prediction_is_named_with_the_place(tmp_path, changed, message):
    write_minimal_run(tmp_path)
    write_csv(tmp_path / "latency_prediction.csv", [ROWS[0] | changed, *ROWS[1:]])
    with pytest.raises(ReportError, match=rf"latency_prediction.csv, {message}"):
        write_report(tmp_path)
    with pytest.raises(ReportError, match="missing.csv is missing; benchmarks/latency_pred"):
        write_report(tmp_path, latency_prediction=tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("changed", "shown"),
    [({}, True), ({"threads": 2}, False), ({"cpu": "Another"}, False), ({"cpu": None}, False),
     ({"quantization": "int8"}, True), ({"quantization": "float16"}, False)],
)  # fmt: skip
def test_predicted_latency_stands_beside_times_of_such_files_on_that_machine(
    tmp_path, changed, shown
):
    write_run(tmp_path)
    children = [
        {"name": name, "genotype": genotype(int(child["resolution"])), "latency_ms": ms, **child}
        for (name, child), ms in zip(CHILDREN.items(), (0.041, 0.082, 0.123), strict=True)
    ]
    write_selected(tmp_path, children)
    of_fixture = timing(tmp_path, 0, 0.0)
    about = {"quantization": "float32", **{key: of_fixture[key] for key in ("threads", "cpu")}}
    weights = {"checkpoint": "step", "crc32": 1, "latency": about | changed}
    dump(tmp_path / "select" / "weights.json", weights)
    table = files_table(read_run(tmp_path))
    of = "_int8" if changed.get("quantization") == "int8" else ""
    if shown:
        column = table.heads.index("predicted (ms)")
        found = {row[0]: row[column] for group in table.groups for row in group}
        assert [found[f"{name}{of}.tflite"] for name in CHILDREN] == ["0.041", "0.082", "0.123"]
        assert sum(cell == NOTHING for cell in found.values()) == len(found) - len(CHILDREN)
    else:
        assert "predicted (ms)" not in table.heads
