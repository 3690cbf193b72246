"""The report against the files that it is made from."""

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from report_fixture import (
    CHILDREN,
    EVALUATION,
    TESTED,
    dump,
    dump_lines,
    page_of,
    timing,
    write_benchmark,
    write_export,
    write_minimal_run,
    write_run,
)

from bignas_tf.report import write_report
from bignas_tf.report.labels import add_labels


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module")
def page(full):
    return page_of(full)


def percent(share) -> str:
    return f"{100 * share:.1f}"


@pytest.mark.parametrize("name", CHILDREN)
def test_the_table_of_children_holds_the_figures_of_the_files(page, full, name):
    row, child, tested = page.tables["Children"][name], CHILDREN[name], TESTED[name]
    size = " MB of the int8 TFLite file"
    limits = {"s": f"≤ 0.25 MMACs, ≤ 0.4{size}", "m": "≤ 0.55 MMACs", "l": "≤ 1 MMACs"}
    assert row["budget"] == limits[name]
    assert row["resolution (px)"] == str(child["resolution"])
    assert float(row["MMACs"]) == pytest.approx(child["mmacs"], abs=0.005)
    assert float(row["params (k)"]) == pytest.approx(1000 * child["params_m"], abs=0.05)
    assert row["held-out (%)"] == percent(child["accuracy"])
    assert row["test (%)"] == percent(tested["top1"])
    assert row["test, not recalibrated (%)"] == percent(tested["top1_uncalibrated"])
    assert row["interval (%)"] == "–".join(percent(end) for end in tested["top1_interval"])
    measured = re.search(rf"/{name}\.tflite,([\d.]+),", (full / "benchmark.csv").read_text())
    assert float(row["median latency (ms)"]) == pytest.approx(float(measured[1]), abs=0.0006)


def test_biggest_smallest_and_baselines_stand_below_the_children(page):
    rows = page.tables["Children"]
    assert list(rows) == [*CHILDREN, "biggest", "smallest", "logistic regression"]
    assert rows["biggest"]["test (%)"] == percent(EVALUATION["biggest"]["top1"])
    assert rows["smallest"]["MMACs"] == "0.12"
    assert rows["logistic regression"]["test (%)"] == "96.4"
    assert rows["logistic regression"]["MMACs"] == "–"


def test_the_table_of_files_holds_sizes_differences_and_times(page, full):
    rows = page.tables["Exported files"]
    assert list(rows) == [f"{c}{q}.tflite" for c in CHILDREN for q in ("", "_int8")]
    lines = (full / "benchmark.csv").read_text().splitlines()[1:]
    for name, row in rows.items():
        size = (full / name).stat().st_size
        assert float(row["size (kB)"]) == pytest.approx(size / 1000, abs=0.5)
        exact = row["quantization"] == "float32"
        assert row["quantization"] == ("int8" if "int8" in name else "float32")
        assert float(row["largest difference to Keras"]) == (2.4e-6 if exact else 0.31)
        # The scale of the outputs is 8.
        assert float(row["of the largest output (%)"]) == (3e-5 if exact else 3.9)
        assert row["same top class"] == ("32 of 32" if exact else "31 of 32")
        median, p95 = next(line for line in lines if f"/{name}," in line).split(",")[1:3]
        assert float(row["median (ms)"]) == pytest.approx(float(median), abs=0.0006)
        assert float(row["p95 (ms)"]) == pytest.approx(float(p95), abs=0.0006)


def test_genotypes_stand_in_one_column_per_stage(page):
    row = page.tables["Genotypes"]["m"]
    assert row == {
        "child": "m",
        "resolution": "10",
        "stem": "16",
        "stage1": "16×2 k3 e2",
        "stage2": "32×2 k3 e3",
        "stage3": "56×2 k3 e3",
        "head": "128",
    }


def test_one_sentence_tells_what_came_out(page):
    expected = (
        "One supernet of the space “digits”, 244 of its children evaluated without retraining: "
        "its biggest child gets 98.1 % and the smallest child gets 94.7 % of 360 test images "
        "right; 3 children selected, 3 exported to TFLite."
    )
    assert expected in page.text


def test_the_page_names_every_command_in_the_order_of_their_start(page, full):
    commands = ("train --recipe=digits", "select", "extract", "evaluate", "convert", "benchmark")
    made = page.text[page.text.index("How this run was made") :]
    places = [made.index(f"bignas {command} --workdir={full}") for command in commands]
    assert places == sorted(places)
    assert "seeds: run 0" in made


def test_a_later_command_on_another_machine_is_told_apart(tmp_path):
    write_minimal_run(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    record["machine"]["cpu"] = "Another CPU"
    dump(tmp_path / "run.benchmark.json", record)
    environment = page_of(tmp_path).tables["Environment"]
    assert environment["cpu"]["value"] == "Some CPU @ 2.50GHz; benchmark: Another CPU"
    assert environment["keras"]["value"] == "3.15.1"


def test_the_page_loads_nothing_and_runs_only_its_own_script(page, full):
    html = (full / "report.html").read_text(encoding="utf-8")
    assert "://" not in html
    assert "<link" not in html and "@import" not in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [v for tag, n, v in page.attributes if n == "content" and "default-src" in v]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    loading = [(t, n, v) for t, n, v in page.attributes if n in ("src", "href", "data", "action")]
    assert loading and all(n == "href" and v.startswith("#") for _, n, v in loading)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_every_id_is_unique_and_every_reference_has_one(page, full):
    html = (full / "report.html").read_text(encoding="utf-8")
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = re.findall(r"url\(#([^)]*)\)", html)
    targets += [value[1:] for _, name, value in page.attributes if name == "href"]
    assert set(targets) <= set(ids)


def test_plots_are_described_in_words_and_take_the_colours_of_the_page(page, full):
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "role")]
    words = [v for tag, name, v in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert pictures == ["img", "group", *["img"] * 5]  # targets lie over the front
    assert "m at 0.512 MMACs: 97.5 % held-out" in words[0]
    assert "biggest: loss" in words[-1]
    html = (full / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"#[0-9a-f]{6}\b", html[html.index("<main>") :])


def test_the_same_files_give_the_same_page(full, page, tmp_path):
    again = write_report(full, tmp_path / "again.html")
    assert again.read_bytes() == (full / "report.html").read_bytes()


def test_accuracy_without_recalibration_does_not_squash_the_plot(page):
    assert "accuracy lies off the scale (10.3 to 31.4 %): see the table" in page.text


def test_names_from_the_inputs_are_text_and_not_markup(full, tmp_path):
    evil = "<script>alert(1)</script>$x_"
    write_run(tmp_path)
    first = tmp_path / "select" / "selected" / "0.json"
    dump(first, {**json.loads(first.read_text()), "name": evil})
    children = {**TESTED, evil: TESTED["s"]}
    dump(
        tmp_path / "evaluation.json",
        {
            **EVALUATION,
            "classes": ["<img src=x>", "b&amp;c"],
            "children": children,
            "baselines": {evil: {"top1": 0.96}},
        },
    )
    page = page_of(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1  # the page's own
    assert "&lt;script&gt;alert(1)" in html[html.index('class="targets"') :]
    assert evil in page.tables["Children"]
    assert "2 classes: <img src=x>, b&amp;c." in page.text


def test_a_run_that_was_only_trained_and_selected_says_what_is_not_there(tmp_path):
    folder = write_minimal_run(tmp_path / "my run")
    page = page_of(folder)
    for text, command in (
        ("No training log", "train"),
        ("No list of evaluated children", "select"),
        ("Not evaluated on test images yet", "evaluate"),
        ("Not exported yet", "convert"),
        ("Not benchmarked yet", "benchmark"),
    ):
        # In the part of the page that lacks it and in the list at the end.
        assert page.text.count(f"{text}: bignas {command} --workdir='{folder}'") == 2
    row = page.tables["Children"]["s"]
    assert row["held-out (%)"] == "95.5"
    assert not {"test (%)", "median latency (ms)"} & set(row)
    assert "Exported files" not in page.tables


def test_children_that_were_left_out_of_a_step_are_named(tmp_path):
    write_minimal_run(tmp_path)
    dump(tmp_path / "evaluation.json", {**EVALUATION, "children": {"s": TESTED["s"]}})
    rows = []
    for name in ("s", "m"):
        size = write_export(tmp_path, name, "float32", 5000)["bytes"]
        rows.append(timing(tmp_path / f"{name}.tflite", size, 0.5))
    write_benchmark(tmp_path, rows[:1])
    page = page_of(tmp_path)
    assert "Test accuracy of m, l." in page.text
    assert "l as TFLite: not exported." in page.text
    assert "Latency of m.tflite." in page.text
    assert page.tables["Children"]["m"]["test (%)"] == "–"
    assert page.tables["Children"]["s"]["median latency (ms)"].startswith("0.50")


def test_times_of_an_older_file_of_the_same_name_are_not_shown(tmp_path):
    write_minimal_run(tmp_path)
    write_export(tmp_path, "s", "float32", 5000)
    write_benchmark(tmp_path, [timing(tmp_path / "s.tflite", 4999, 0.5)])
    page = page_of(tmp_path)
    assert "The benchmark timed other files than those here" in page.text
    assert "median (ms)" not in page.tables["Exported files"]["s.tflite"]


@pytest.mark.parametrize(
    "changes", [{"preprocessing": "inside"}, {"finetuning": {"technique": "prune"}}]
)
def test_the_latency_of_a_child_is_that_of_its_plain_file(changes, tmp_path):
    write_minimal_run(tmp_path)
    rows = []
    for name, ms in (("a", 0.9), ("s", 0.5)):
        size = write_export(tmp_path, name, "float32", 5000)["bytes"]
        rows.append(timing(tmp_path / f"{name}.tflite", size, ms))
    other = json.loads((tmp_path / "a.json").read_text())
    dump(tmp_path / "a.json", {**other, "child": "s", **changes})
    write_benchmark(tmp_path, rows)
    assert page_of(tmp_path).tables["Children"]["s"]["median latency (ms)"].startswith("0.50")
    (tmp_path / "s.tflite").unlink()
    assert "median latency (ms)" not in page_of(tmp_path).tables["Children"]["s"]


def test_nothing_needs_to_be_selected(tmp_path):
    write_minimal_run(tmp_path)
    for path in (tmp_path / "select" / "selected").iterdir():
        path.unlink()
    page = page_of(tmp_path)
    assert "No child was selected." in page.text
    assert "Children" not in page.tables


def test_random_children_of_a_step_are_one_curve_of_their_means(tmp_path):
    write_minimal_run(tmp_path)
    lines = [
        {"step": step, "epoch": 0, "loss/random1": 3.0 - step, "loss/random2": 2.0 - step}
        for step in range(2)
    ]
    dump_lines(tmp_path / "log.jsonl", lines)
    words = [v for tag, name, v in page_of(tmp_path).attributes if name == "aria-label"]
    assert "Training curves over epochs. random: loss 2.5 at first, 1.5 at last." in words


def test_long_curves_are_means_of_neighbours_and_the_page_says_so(tmp_path):
    write_minimal_run(tmp_path)
    lines = [{"step": i, "epoch": i / 100, "loss/biggest": i % 2} for i in range(600)]
    dump_lines(tmp_path / "log.jsonl", lines)
    page = page_of(tmp_path)
    assert "Each point of a loss is the mean of 4 logged steps." in page.text
    words = [v for tag, name, v in page.attributes if name == "aria-label"]
    assert "Training curves over epochs. biggest: loss 0.5 at first, 0.5 at last." in words


def test_names_of_crowded_points_overlap_neither_each_other_nor_the_lines():
    axes = Figure(figsize=(9, 5), dpi=72).add_subplot()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    labels = [(4 + 0.3 * i, 5 + 0.1 * i, f"budget_{i}") for i in range(6)]
    line = [(0.0, 3.0), (10.0, 7.0)]
    add_labels(axes, labels, [line], [])
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    boxes = [t.get_window_extent(renderer) for t in axes.texts if t.get_text()]
    assert len(boxes) == len(labels)
    for a, b in itertools.combinations(boxes, 2):
        assert Bbox.intersection(a, b) is None
    frame = axes.get_window_extent(renderer)
    for box in boxes:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        (x0, y0), (x1, y1) = axes.transData.transform(line)
        above = [y - y0 - (x - x0) * (y1 - y0) / (x1 - x0) > 0 for x, y in box.corners()]
        assert len(set(above)) == 1


def test_a_log_with_infinite_losses_is_drawn_without_them(tmp_path):
    write_minimal_run(tmp_path)
    lines = [{"step": i, "epoch": i, "loss/biggest": loss} for i, loss in enumerate((2.0, "nan"))]
    dump_lines(tmp_path / "log.jsonl", lines)
    page = page_of(tmp_path)
    assert "1 lines of the log hold numbers that are not finite." in page.text


def test_a_log_without_a_finite_loss_has_no_plot(tmp_path):
    write_minimal_run(tmp_path)
    lines = [{"step": i, "epoch": i, "loss/biggest": "nan"} for i in range(2)]
    dump_lines(tmp_path / "log.jsonl", lines)
    page = page_of(tmp_path)
    assert "The training log has no finite losses." in page.text
    words = [v for tag, name, v in page.attributes if name == "aria-label"]
    assert not any(word.startswith("Training curves") for word in words)


def test_the_output_must_be_html(full):
    with pytest.raises(ValueError, match=r"`output` must end in \.html"):
        write_report(full, full / "run.json")
    assert json.loads((full / "run.json").read_text())["seeds"] == {"run": 0}


def test_the_report_imports_neither_tensorflow_nor_keras(full, tmp_path):
    program = (
        "import sys; from bignas_tf.report import write_report\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"write_report({str(full)!r}, {str(tmp_path / 'page.html')!r})\n"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603
