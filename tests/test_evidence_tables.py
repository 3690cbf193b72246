"""The tables of benchmarks/evidence.py, from made-up results of its sweeps."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bignas_tf.intervals import paired_interval, t_interval
from bignas_tf.sweep.results import COLUMNS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
IMAGES = 400


@pytest.fixture
def tables(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import evidence_tables

    yield evidence_tables
    for name in ("evidence_tables", "evidence_plots"):
        sys.modules.pop(name, None)


def predictions(seed, right):
    labels = np.random.default_rng(0).integers(0, 10, IMAGES)
    wrong = np.random.default_rng(seed).permutation(IMAGES) >= right * IMAGES
    return labels, np.where(wrong, (labels + 1) % 10, labels)


class Folder:
    """A workdir of evidence.py, run by run."""

    def __init__(self, path):
        self.path = path
        self.right = {}
        self._rows = {}

    def run(self, part, variant, seed, children, epochs=2):
        """Adds a finished run; `children` are accuracies, or pairs with the uncalibrated one."""
        run = self.path / part / f"{variant}-seed{seed}"
        run.mkdir(parents=True)
        arrays = {}
        for number, (child, accuracy) in enumerate(children.items()):
            top1, stale = accuracy if isinstance(accuracy, tuple) else (accuracy, "")
            labels, arrays[child] = predictions(seed * 100 + number + len(variant), top1)
            self.right[part, variant, seed, child] = arrays[child] == labels
            row = dict.fromkeys(COLUMNS, "")
            row |= {"variant": variant, "seed": seed, "child": child, "status": "finished"}
            row |= {"top1": (arrays[child] == labels).mean(), "top1_uncalibrated": stale}
            row |= {"top1_low": top1 - 0.01, "top1_high": top1 + 0.01, "mmacs": 3 + number}
            row |= {"params_m": 0.1, "resolution": 24, "backend": "tensorflow", "device": "cpu X"}
            row |= {"overrides": json.dumps({"epochs": epochs}), "train_seconds": seed + 1}
            self._rows.setdefault(part, []).append(row)
        self.log(part, run.name, 0)
        np.savez(run / "predictions.npz", labels=labels, **arrays)
        with (self.path / part / "results.csv").open("w", newline="") as text:
            writer = csv.DictWriter(text, COLUMNS)
            writer.writeheader()
            writer.writerows(self._rows[part])

    def log(self, part, run, epochs):
        lines = [
            {"step": 7 * e, "epoch": e, "accuracy/biggest": e / 10, "accuracy/smallest": e / 20}
            for e in range(1, epochs + 1)
        ]
        path = self.path / part / run / "log.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read(folder, name):
    (path,) = folder.glob(f"cifar10_{name}_*.csv")
    with path.open(newline="") as text:
        return list(csv.DictReader(text))


def written(tables, folder, tmp_path):
    results, plots = tmp_path / "results", tmp_path / "plots"
    tables.write(folder.path, results, plots)
    return results, plots


def effects_of(results):
    return {(row["variant"], row["child"]): row for row in read(results, "ablation_effects")}


def interval(row, kind=""):
    return tuple(float(row[f"difference_{kind}{end}"]) for end in ("low", "high"))


def test_everything_there_is_becomes_tables_and_plots(tables, tmp_path, capsys):
    folder = Folder(tmp_path / "evidence")
    ends = {"biggest": 0.9, "smallest": (0.7, 0.2)}
    folder.run("main", "full", 0, {**ends, "s": (0.75, 0.3), "l": (0.85, 0.6)})
    folder.log("main", "full-seed0", 2)
    folder.run("ending", "no_constant_ending", 0, {"biggest": 0.8, "smallest": (0.75, 0.2)})
    folder.log("ending", "no_constant_ending-seed0", 2)
    folder.run("finetuning", "s-lr0.01", 0, {"biggest": 0.7, "smallest": 0.7})
    folder.run("alone", "l-jointly", 0, {"biggest": 0.88, "smallest": (0.8, 0.5)})
    folder.run("rates", "full-rate0.2", 0, ends)
    for seed in (0, 1):
        folder.run("ablations", "full", seed, ends)
        folder.log("ablations", f"full-seed{seed}", 2)
        folder.run("ablations", "other", seed, {"biggest": 0.8, "smallest": (0.65, 0.3)})
    results, plots = written(tables, folder, tmp_path)
    names = {path.name for path in results.iterdir()}
    kinds = ("main", "ending", "finetuning", "alone", "rates", "ablations", "ablation_effects")
    kinds += ("convergence_main", "convergence_ending", "convergence_ablations")
    assert names == {f"cifar10_{kind}_2epochs_tensorflow_cpu.csv" for kind in kinds}
    (row,) = read(results, "finetuning")
    right = folder.right["finetuning", "s-lr0.01", 0, "biggest"]
    reference = folder.right["main", "full", 0, "s"]
    assert row["child"] == "s"
    assert float(row["difference"]) == pytest.approx(right.mean() - reference.mean(), abs=1e-6)
    assert interval(row) == pytest.approx(paired_interval(right, reference), abs=1e-6)
    assert row["command"].endswith("--parts=main,finetuning")
    (row,) = read(results, "alone")  # jointly: the child is the smallest
    right = folder.right["alone", "l-jointly", 0, "smallest"]
    reference = folder.right["main", "full", 0, "l"]
    assert float(row["difference"]) == pytest.approx(right.mean() - reference.mean(), abs=1e-6)
    both = read(results, "ending")
    assert [row["child"] for row in both] == ["biggest", "smallest"]
    right = folder.right["ending", "no_constant_ending", 0, "smallest"]
    reference = folder.right["main", "full", 0, "smallest"]
    assert interval(both[1]) == pytest.approx(paired_interval(right, reference), abs=1e-6)
    assert {path.name for path in plots.iterdir()} == {
        "evidence_front.png",
        "evidence_convergence.png",
    }
    assert "| no_calibration | full | 2 |  | 20.00: " in capsys.readouterr().out
    (first, *_) = read(results, "convergence_ablations")
    assert (first["variant"], first["seed"], first["device"]) == ("full", "0", "cpu X")


def test_an_ablation_is_compared_seed_by_seed_and_image_by_image(tables, tmp_path):
    folder = Folder(tmp_path / "evidence")
    for seed in (0, 1):
        folder.run("ablations", "full", seed, {"biggest": 0.9, "smallest": (0.7, 0.2)})
        folder.run("ablations", "other", seed, {"biggest": 0.8, "smallest": (0.65, 0.3)})
    results, _ = written(tables, folder, tmp_path)
    effects = effects_of(results)

    def right(variant, child):
        return np.array([folder.right["ablations", variant, seed, child] for seed in (0, 1)])

    for child in ("biggest", "smallest"):
        differences = (right("other", child).mean(1) - right("full", child).mean(1)).tolist()
        row = effects["other", child]
        assert float(row["difference"]) == pytest.approx(np.mean(differences))
        assert interval(row) == pytest.approx(t_interval(differences))
        by_image = right("other", child).mean(0), right("full", child).mean(0)
        assert interval(row, "images_") == pytest.approx(paired_interval(*by_image))
    both = [float(effects["other", child]["difference"]) for child in ("biggest", "smallest")]
    assert float(effects["other", "mean"]["difference"]) == pytest.approx(np.mean(both))
    assert effects["other", "mean"]["train_seconds"] == "1; 2"
    # The biggest child's own statistics are calibrated: there is no effect to report.
    assert ("no_calibration", "biggest") not in effects
    stale = 0.2 - right("full", "smallest").mean()
    assert float(effects["no_calibration", "smallest"]["difference"]) == pytest.approx(stale)
    assert effects["no_calibration", "smallest"]["difference_images_low"] == ""


def test_single_paths_are_compared_with_the_sandwich_that_learns_what_they_learn(tables, tmp_path):
    folder = Folder(tmp_path / "evidence")
    accuracies = {"full": 0.9, "sandwich_on_labels": 0.8, "no_sandwich": 0.5}
    for variant, top1 in accuracies.items():
        folder.run("ablations", variant, 0, {"biggest": top1})
    results, _ = written(tables, folder, tmp_path)
    row = effects_of(results)["no_sandwich", "biggest"]
    assert (row["reference"], row["difference_low"]) == ("sandwich_on_labels", "")  # one seed
    assert float(row["difference"]) == pytest.approx(0.5 - 0.8)
    assert effects_of(results)["sandwich_on_labels", "biggest"]["reference"] == "full"


def test_parts_that_are_not_done_are_left_out(tables, tmp_path):
    folder = Folder(tmp_path / "evidence")
    folder.log("main", "full-seed0", 1)  # still training
    folder.run("ablations", "full", 0, {"biggest": 0.9, "smallest": (0.7, 0.2)})
    results, plots = written(tables, folder, tmp_path)
    names = {path.name.removesuffix("_2epochs_tensorflow_cpu.csv") for path in results.iterdir()}
    assert names == {"cifar10_ablations", "cifar10_ablation_effects"}
    assert list(plots.iterdir()) == []
