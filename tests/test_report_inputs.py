"""What the report says about files that are damaged or missing."""

import hashlib
import json
import re

import pytest
from report_fixture import (
    CHILDREN,
    EVALUATION,
    TESTED,
    dump,
    genotype,
    page_of,
    timing,
    write_benchmark,
    write_export,
    write_minimal_run,
    write_run,
    write_selected,
)

from bignas_tf.report import ReportError, write_report
from bignas_tf.report.exports import read_exported

POINT = '{"genotype": {}, "mmacs": 0.7, "accuracy": 0.9}'


@pytest.mark.parametrize(("end", "count"), [('{"mmacs": 0.7, "accu', 1), (POINT, 2)])
def test_a_last_line_without_its_end_counts_only_if_it_is_whole(tmp_path, end, count):
    write_minimal_run(tmp_path)
    (tmp_path / "select" / "points.jsonl").write_text(f"{POINT}\n{end}")
    assert f"{count} of its children evaluated" in page_of(tmp_path).text


DAMAGED = {
    "run.json": ("{", "must be JSON"),
    "run.select.json": ("{}", "`command` is missing"),
    "log.jsonl": ('{"step": 1, "epoch": 1}\n{"step"\n{}\n', "Line 2 of "),
    "select/points.jsonl": (
        '{"genotype": {}, "mmacs": 1}\n',
        "line 1: `accuracy` is missing",
    ),
    "select/selected/0.json": ('{"order": 0, "name": 3}', "`name` must be a string"),
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


@pytest.mark.parametrize("name", ["run.json", "select/selected"])
def test_a_folder_without_a_selection_is_refused(tmp_path, name):
    write_minimal_run(tmp_path)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(ReportError, match=rf"{name} is missing; `bignas (train|select)`"):
        write_report(tmp_path)


def test_figures_of_another_genotype_of_the_same_name_are_left_out(tmp_path):
    write_run(tmp_path)
    assert "Left out" not in page_of(tmp_path).text
    chosen = {name: genotype(int(child["resolution"])) for name, child in CHILDREN.items()}
    children = {k: {**row, "genotype": chosen[k], "weights": "0"} for k, row in TESTED.items()}
    children["s"]["genotype"] = chosen["l"]
    dump(tmp_path / "evaluation.json", {**EVALUATION, "children": children})
    for name in chosen:
        sidecar = json.loads((tmp_path / f"{name}.json").read_text())
        sidecar["genotype"] = chosen["s" if name == "m" else name]
        dump(tmp_path / f"{name}.json", sidecar)
    page = page_of(tmp_path)
    rows = page.tables["Children"]
    assert [rows[name]["test (%)"] for name in chosen] == ["–", "97.2", "97.8"]
    latencies = [rows[name]["median latency (ms)"] for name in chosen]
    assert [latency == "–" for latency in latencies] == [False, True, False]
    assert "m.tflite" not in page.tables["Exported files"]
    assert "but another genotype: m.tflite, test accuracy of s." in page.text


def test_times_of_another_file_of_the_same_size_are_left_out(tmp_path):
    write_minimal_run(tmp_path)
    file = write_export(tmp_path, "s", "float32", 100)
    row = timing(tmp_path / "s.tflite", file["bytes"], 0.1)
    content = (tmp_path / "s.tflite").read_bytes()
    for found, shown in ((content, True), (b"another", False)):
        write_benchmark(tmp_path, [{**row, "sha256": hashlib.sha256(found).hexdigest()}])
        table = page_of(tmp_path).tables["Exported files"]
        assert ("median (ms)" in table["s.tflite"]) == shown


def test_a_variant_is_the_childs_that_its_json_names(tmp_path):
    path = tmp_path / "s_int8_uint8_inside.tflite"
    write_export(tmp_path, "s", "int8", 100)
    (tmp_path / "s_int8.tflite").rename(path)
    described = json.loads((tmp_path / "s_int8.json").read_text())
    dump(path.with_suffix(".json"), described)
    assert read_exported(path).child == path.stem
    dump(path.with_suffix(".json"), {**described, "child": "s"})
    assert read_exported(path).child == "s"


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
    write_selected(tmp_path, [child, child])
    with pytest.raises(ReportError, match=r"1\.json: `name` must be another"):
        write_report(tmp_path)


def test_a_network_that_cannot_be_is_refused_with_its_file(tmp_path):
    write_minimal_run(tmp_path)
    path = tmp_path / "select" / "selected" / "2.json"
    described = json.loads(path.read_text())
    dump(path, {**described, "spec": {**described["spec"], "classes": 0}})
    with pytest.raises(ReportError, match=r"2\.json: `spec` must be a network: `classes` must"):
        write_report(tmp_path)
