"""What the report says about files that are damaged or missing."""

import json
import re

import pytest
from report_fixture import (
    CHILDREN,
    EVALUATION,
    dump,
    genotype,
    page_of,
    write_export,
    write_minimal_run,
)

from bignas_tf.report import ReportError, write_report

POINT = '{"mmacs": 0.7, "accuracy": 0.9}'


@pytest.mark.parametrize(("end", "count"), [('{"mmacs": 0.7, "accu', 1), (POINT, 2)])
def test_a_last_line_without_its_end_counts_only_if_it_is_whole(tmp_path, end, count):
    write_minimal_run(tmp_path)
    (tmp_path / "select" / "points.jsonl").write_text(f"{POINT}\n{end}")
    assert f"{count} of its children evaluated" in page_of(tmp_path).text


DAMAGED = {
    "run.json": ("{", "is not JSON"),
    "run.select.json": ("{}", "`command` is missing"),
    "log.jsonl": ('{"step": 1, "epoch": 1}\n{"step"\n{}\n', "line 2: not JSON"),
    "select/points.jsonl": ('{"mmacs": 1}\n', "line 1: `accuracy` is missing"),
    "select/front.json": ("{}", "a list is needed"),
    "select/selected.json": ('[{"name": 3}]', "child 1: `name` must be a string"),
    "evaluation.json": (
        json.dumps({**EVALUATION, "children": {"s": {"top1": 96.1}}}),
        "`children`, `s`: `top1` must be a number at least 0 and at most 1. Received: 96.1",
    ),
    "s.json": ("[]", "an object is needed"),
    "benchmark.csv": ("path,median_ms,p95_ms,threads\ns.tflite,fast,1,1\n", "line 2: `median_ms`"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_with_the_place(tmp_path, name):
    write_minimal_run(tmp_path)
    write_export(tmp_path, "s", "float32", 100)
    content, problem = DAMAGED[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ReportError, match=re.escape(str(tmp_path / name))) as error:
        write_report(tmp_path)
    assert problem in str(error.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("interval", [[0.9], [0.99, 0.9], [0.9, 0.95, 0.99], [0.9, "x"]])
def test_an_interval_is_two_ascending_numbers(tmp_path, interval):
    write_minimal_run(tmp_path)
    children = {"s": {"top1": 0.95, "top1_interval": interval}}
    dump(tmp_path / "evaluation.json", {**EVALUATION, "children": children})
    with pytest.raises(ReportError, match="evaluation.json"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "select/selected.json"])
def test_a_folder_without_a_finished_selection_is_refused(tmp_path, name):
    write_minimal_run(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ReportError, match=rf"{name} is missing; `bignas (train|select)`"):
        write_report(tmp_path)


def test_a_sidecar_of_another_file_is_refused(tmp_path):
    write_minimal_run(tmp_path)
    write_export(tmp_path, "s", "float32", 100)
    (tmp_path / "s.tflite").write_bytes(b"another")
    with pytest.raises(ReportError, match=r"s\.json describes another file than s\.tflite"):
        write_report(tmp_path)
    (tmp_path / "s.json").unlink()
    with pytest.raises(ReportError, match=r"s\.tflite has no s\.json beside it"):
        write_report(tmp_path)


def test_two_selected_children_of_one_name_are_refused(tmp_path):
    write_minimal_run(tmp_path)
    child = {"name": "s", "genotype": genotype(8), **CHILDREN["s"]}
    dump(tmp_path / "select" / "selected.json", [child, child])
    with pytest.raises(ReportError, match=r"selected\.json, child 2: `name`"):
        write_report(tmp_path)
