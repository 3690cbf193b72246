"""A run folder with made-up figures, and a reader of pages, for the tests of the report."""

import csv
import hashlib
import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from bignas_tf.report import write_report
from bignas_tf.spaces import get_space

CHILDREN = {
    "s": {"mmacs": 0.2381, "params_m": 0.0195, "accuracy": 0.955, "resolution": 8},
    "m": {"mmacs": 0.5124, "params_m": 0.0312, "accuracy": 0.975, "resolution": 10},
    "l": {"mmacs": 0.9873, "params_m": 0.0544, "accuracy": 0.985, "resolution": 12},
}
BUDGETS = {"s": 0.25, "m": 0.55, "l": 1.0}
TESTED = {
    "s": {"top1": 0.9611, "top1_uncalibrated": 0.3139, "top1_interval": [0.9361, 0.9767]},
    "m": {"top1": 0.9722, "top1_uncalibrated": 0.2417, "top1_interval": [0.9498, 0.9849]},
    "l": {"top1": 0.9778, "top1_uncalibrated": 0.1028, "top1_interval": [0.9569, 0.9887]},
}
EVALUATION = {
    "split": "test",
    "images": 360,
    "classes": [str(digit) for digit in range(10)],
    "children": TESTED,
    "biggest": {"top1": 0.9806, "mmacs": 1.7211},
    "smallest": {"top1": 0.9472, "mmacs": 0.1212},
    "baselines": {"logistic regression": {"top1": 0.9639}},
}
RECIPE = {
    "name": "digits",
    "space": "digits",
    "epochs": 40,
    "batch_size": 64,
    "distillation": True,
    "seed": 0,
}
STEPS_PER_EPOCH = 20
SPACE = get_space("digits")


def genotype(resolution: int) -> dict[str, int]:
    genes = {"resolution": resolution, "stem_width": 16}
    for stage, width in (("stage1", 16), ("stage2", 32), ("stage3", 56)):
        genes |= {f"{stage}_width": width, f"{stage}_depth": 2}
        genes |= {f"{stage}_kernel": 3, f"{stage}_expand": 2 if stage == "stage1" else 3}
    return {**genes, "head_width": 128}


def record(command: str, started: str, **extra: object) -> dict:
    return {
        "started": started,
        "command": command,
        "seeds": {"run": 0},
        "recipe": RECIPE,
        "versions": {"bignas_tf": "0.1.0", "python": "3.11.9", "keras": "3.15.1", "numpy": "2.4.0"},
        "threads": {"cpus": 2, "OMP_NUM_THREADS": None, "intra_op": 0, "inter_op": 0},
        "machine": {"platform": "Linux-6.1-x86_64", "cpu": "Some CPU @ 2.50GHz"},
        **extra,
    }


def dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def dump_lines(path: Path, values: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def write_run(folder: Path) -> Path:
    """A run of which everything is there."""
    write_minimal_run(folder)
    for i, command in enumerate(("select", "extract", "evaluate", "convert", "benchmark")):
        line = f"bignas {command} --workdir={folder}"
        dump(folder / f"run.{command}.json", record(line, f"2026-01-02T03:1{i}:00+00:00"))
    dump_lines(folder / "log.jsonl", _log())
    dump_lines(folder / "select" / "points.jsonl", _points())
    dump(folder / "evaluation.json", EVALUATION)
    rows = []
    for size, name in enumerate(CHILDREN, start=1):
        for quantization, share in (("float32", 1.0), ("int8", 0.36)):
            file = write_export(folder, name, quantization, int(60_000 * size * share))
            rows.append(timing(folder / file["name"], file["bytes"], 0.031 * size * (share + 0.5)))
    write_benchmark(folder, rows)
    return folder


def write_minimal_run(folder: Path) -> Path:
    """A run of which only the needed files are there."""
    command = f"bignas train --recipe=digits --workdir={folder}"
    dump(folder / "run.json", record(command, "2026-01-02T03:04:05+00:00"))
    write_selected(
        folder,
        [
            {
                "name": name,
                "budget": {
                    "mmacs": BUDGETS[name],
                    **({"size_mb_int8": 0.4} if name == "s" else {}),
                },
                "genotype": genotype(int(figures["resolution"])),
                **figures,
            }
            for name, figures in CHILDREN.items()
        ],
    )
    return folder


def write_selected(folder: Path, chosen: list[dict]) -> None:
    """The chosen children, one file each, by number."""
    shutil.rmtree(folder / "select" / "selected", ignore_errors=True)
    for order, entry in enumerate(chosen):
        spec = SPACE.genotype(entry["genotype"]).spec().to_json()
        path = folder / "select" / "selected" / f"{order}.json"
        dump(path, {**entry, "order": order, "spec": spec})


def write_export(folder: Path, child: str, quantization: str, size: int) -> dict:
    """A TFLite file of so many bytes, and its sidecar."""
    stem = child if quantization == "float32" else f"{child}_{quantization}"
    content = stem.encode().ljust(size, b"\0")
    (folder / f"{stem}.tflite").write_bytes(content)
    exact = quantization == "float32"
    sidecar = {
        "macs": 1,
        "params": 1,
        "quantization": quantization,
        "bytes": size,
        "sha256": hashlib.sha256(content).hexdigest(),
        "verification": {
            "images": 32,
            "scale": 8.0,
            "max_difference": 2.4e-6 if exact else 0.31,
            "mean_difference": 4e-7 if exact else 0.05,
            "agreement": 1.0 if exact else 0.96875,
            "clear_disagreements": 0,
        },
    }
    dump(folder / f"{stem}.json", sidecar)
    return {"name": f"{stem}.tflite", "bytes": size}


def timing(path: Path, size: int, median_ms: float, threads: int = 1) -> dict:
    return {
        "path": str(path),
        "median_ms": round(median_ms, 4),
        "p95_ms": round(1.2 * median_ms, 4),
        "threads": threads,
        "file_bytes": size,
        "cpu": "Some CPU @ 2.50GHz",
        "cores": 2,
        "load_1min": 0.12,
        "date": "2026-01-02T03:20:00+00:00",
    }


def write_benchmark(folder: Path, rows: list[dict]) -> None:
    with (folder / "benchmark.csv").open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _log() -> list[dict]:
    rng = np.random.Generator(np.random.Philox(0))
    lines: list[dict] = []
    for step in range(0, 40 * STEPS_PER_EPOCH, 5):
        epoch = step // STEPS_PER_EPOCH
        falling = math.exp(-step / 150)
        noise = rng.normal(0, 0.03, 4)
        roles = ("biggest", "smallest", "random1", "random2")
        bases = (0.62, 0.75, 0.7, 0.7)
        losses = {
            f"loss/{role}": base + 1.7 * falling + float(error)
            for role, base, error in zip(roles, bases, noise, strict=True)
        }
        total = sum(losses.values())
        rate = 0.1 * 0.97**epoch
        lines.append(
            {"step": step, "epoch": epoch, "learning_rate": rate, "loss": total, **losses}
            | {"images_per_second": 800 + 100 * float(noise[0])}
        )
        if step % (5 * STEPS_PER_EPOCH) == 15 + 4 * STEPS_PER_EPOCH:
            accuracies = {"accuracy/biggest": 0.985 - falling, "accuracy/smallest": 0.95 - falling}
            lines.append({"step": step, "epoch": epoch + 1, **accuracies})
    return lines


def _points() -> list[dict]:
    rng = np.random.Generator(np.random.Philox(1))
    points = []
    for i in range(240):
        mmacs = float(np.exp(rng.uniform(np.log(0.125), np.log(1.7))))
        best = 0.985 - 0.012 * (math.log(1.7 / mmacs)) ** 1.4
        accuracy = round((best - abs(rng.normal(0, 0.012))) * 200) / 200
        phase = "coarse" if i < 200 else "fine"
        points.append(_point(mmacs, accuracy, phase, mmacs * 0.05))
    points.append(_point(0.9, 0.42, "coarse", 0.05))  # one that failed
    points += [_point(c["mmacs"], c["accuracy"], "fine", c["params_m"]) for c in CHILDREN.values()]
    return points


def _point(mmacs: float, accuracy: float, phase: str, params_m: float) -> dict:
    figures = {"mmacs": mmacs, "params_m": params_m, "accuracy": accuracy, "phase": phase}
    return {"genotype": genotype(8), **figures}


class Page(HTMLParser):
    """Text, tables and attributes of a page, as a browser would take them.

    Attributes:
        tables: caption -> rows by their first cell, each column head -> cell.
        text: everything that is read, in order.
        attributes: (tag, name, value).
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, dict[str, dict[str, str]]] = {}
        self.text = ""
        self.attributes: list[tuple[str, str, str]] = []
        self._cell: list[str] | None = None
        self._row: list[str] = []
        self._heads: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in ("th", "td", "caption"):
            self._cell = []
        if tag == "tr":
            self._row = []

    def handle_data(self, data):
        if "style" not in self._open[-1:]:
            self.text += data
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag in ("th", "td", "caption") and self._cell is not None:
            # Heads and limits have hyphens and spaces that do not break.
            cell = "".join(self._cell).replace("\u2011", "-").replace("\u00a0", " ")
            self._cell = None
            if tag == "caption":
                self._rows = self.tables.setdefault(cell, {})
            else:
                self._row.append(cell)
        if tag == "tr" and "thead" in self._open[-3:]:
            self._heads = self._row
        elif tag == "tr":
            self._rows[self._row[0]] = dict(zip(self._heads, self._row, strict=True))
        while self._open and self._open.pop() != tag:
            pass


def page_of(folder, **options) -> Page:
    return Page(write_report(folder, **options).read_text(encoding="utf-8"))
