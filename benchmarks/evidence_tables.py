"""Tables of the evidence: from the folders of its sweeps to CSV files, plots and Markdown."""

from __future__ import annotations

import csv
import json
import pathlib
import statistics
from collections.abc import Sequence

import numpy as np

Row = dict[str, str]
# Which child of a run the variant is about; all else is about the biggest.
SMALLEST = ("-jointly",)
COMPARED = ("reference_top1", "difference", "difference_low", "difference_high")
# What an ablation is compared with, if not `full`: all that learns from labels, as it does.
FULL, ON_LABELS = "full", "sandwich_on_labels"
REFERENCE_VARIANT = {"no_sandwich": ON_LABELS, "no_sandwich_four_paths": ON_LABELS}
EFFECT = (
    "difference", "difference_low", "difference_high", "difference_images_low",
    "difference_images_high",
)  # fmt: skip
NEEDS_MAIN = ("ending", "finetuning", "alone", "calibration")


def write(workdir: pathlib.Path, results: pathlib.Path, plots: pathlib.Path) -> None:
    """Writes what is there, and prints it as Markdown."""
    results.mkdir(parents=True, exist_ok=True)
    plots.mkdir(parents=True, exist_ok=True)
    main = _rows(workdir / "main")
    if main:
        _save(results, "main", main, workdir / "main")
        _print("Children sliced", _main_lines(main))
    compared: dict[str, list[Row]] = {}
    for part in ("ending", "finetuning", "alone"):
        compared[part] = _against_main(workdir, part)
        if compared[part]:
            _save(results, part, compared[part], workdir / part)
            _print(part.capitalize(), _compared_lines(compared[part]))
    rates, ablations = (_rows(workdir / part) for part in ("rates", "ablations"))
    if rates:
        _save(results, "rates", rates, workdir / "rates")
        _print("Learning rates, held-out images", _rate_lines(rates))
    if ablations:
        _save(results, "ablations", ablations, workdir / "ablations")
        effects = ablation_effects(workdir / "ablations")
        _save(results, "ablation_effects", effects, workdir / "ablations")
        _print("Ablations", _effect_lines(effects))
    calibration = _read(workdir / "calibration.csv")
    if calibration and main:
        _save(results, "calibration", calibration, workdir / "main")
        _print("Calibration", _calibration_lines(calibration_means(calibration)))
    curves = []
    for part in ("main", "ending", "ablations"):
        some = convergence(workdir, part)
        if some:
            _save(results, f"convergence_{part}", some, workdir / part)
            curves += some
    from evidence_plots import draw_convergence, draw_front

    if main:
        draw_front(main, compared["alone"], plots / "evidence_front.png")
    if curves:
        draw_convergence(curves, plots / "evidence_convergence.png")


# Files ---------------------------------------------------------------------------------------


def _read(path: pathlib.Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def _rows(folder: pathlib.Path) -> list[Row]:
    return [row for row in _read(folder / "results.csv") if row["status"] == "finished"]


def _save(results: pathlib.Path, name: str, rows: Sequence[Row], sweep: pathlib.Path) -> None:
    """Writes rows, and the command that makes them, to a file whose name tells the conditions."""
    from bignas_tf.files import replacing

    path = results / f"cifar10_{name}_{_conditions(sweep)}.csv"
    part = {"ablation_effects": "ablations"}.get(name, name.removeprefix("convergence_"))
    parts = f"main,{part}" if part in NEEDS_MAIN else part
    command = f"python benchmarks/evidence.py --data=DATA --workdir=DIR --parts={parts}"
    rows = [{**row, "command": command} for row in rows]
    columns = list(rows[0])
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _conditions(sweep: pathlib.Path) -> str:
    row = _rows(sweep)[0]
    epochs = json.loads(row["overrides"])["epochs"]
    return f"{epochs}epochs_{row['backend']}_{row['device'].split()[0]}"


def _print(title: str, lines: Sequence[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"\n{title}\n")
    head, *body = lines
    for line in (head, ["---"] * len(head), *body):
        print("| " + " | ".join(line) + " |")


# Comparisons ---------------------------------------------------------------------------------


def _right(folder: pathlib.Path, child: str) -> np.ndarray:
    with np.load(folder / "predictions.npz") as predictions:
        return predictions[child] == predictions["labels"]


def _against_main(workdir: pathlib.Path, part: str) -> list[Row]:
    """The children that each variant is about, with their differences to the same of main.

    The interval is paired over the test images; it does not know of other seeds.
    """
    from bignas_tf.intervals import paired_interval

    main = {row["child"]: row for row in _rows(workdir / "main")}
    found = []
    for row in _rows(workdir / part):
        child = row["child"] if part == "ending" else _trained_child(row)
        if child is None:
            continue
        right = _right(workdir / part / _run(row), row["child"])
        reference = _right(workdir / "main" / _run(main[child]), child)
        low, high = paired_interval(right, reference)
        values = (
            main[child]["top1"], f"{right.mean() - reference.mean():.6f}", f"{low:.6f}",
            f"{high:.6f}",
        )  # fmt: skip
        found.append({**row, "child": child, **dict(zip(COMPARED, values, strict=True))})
    return found


def _trained_child(row: Row) -> str | None:
    """The child of main that a run of one child trained; None for others of the run."""
    about = "smallest" if row["variant"].endswith(SMALLEST) else "biggest"
    return row["variant"].split("-")[0] if row["child"] == about else None


def _run(row: Row) -> str:
    return f"{row['variant']}-seed{row['seed']}"


class Ablations:
    """Accuracies of the ablations by variant, child and seed.

    `MEAN` is the mean of the run's children, the one outcome that is looked at first.
    """

    MEAN = "mean"

    def __init__(self, folder: pathlib.Path):
        self.folder, self.rows = folder, _rows(folder)
        self.variants = list(dict.fromkeys(row["variant"] for row in self.rows))
        self.children = list(dict.fromkeys(row["child"] for row in self.rows))

    def top1(self, variant: str, child: str, column: str = "top1") -> dict[str, float]:
        """By seed."""
        if child == self.MEAN:
            each = [self.top1(variant, one, column) for one in self.children]
            shared = [seed for seed in each[0] if all(seed in one for one in each)]
            return {seed: statistics.mean(one[seed] for one in each) for seed in shared}
        chosen = (r for r in self.rows if (r["variant"], r["child"]) == (variant, child))
        return {row["seed"]: float(row[column]) for row in chosen if row[column]}

    def right(self, variant: str, child: str, seeds: Sequence[str]) -> np.ndarray:
        """The share of seeds, and of children for `MEAN`, that have each test image right."""
        children = self.children if child == self.MEAN else [child]
        folders = [self.folder / f"{variant}-seed{seed}" for seed in seeds]
        return np.mean([_right(folder, one) for folder in folders for one in children], axis=0)

    def about(self, variant: str, column: str) -> list[str]:
        """What a column says of a variant's runs."""
        rows = [row for row in self.rows if row["variant"] == variant]
        return [row[column] for row in {_run(row): row for row in rows}.values()]


def ablation_effects(folder: pathlib.Path) -> list[Row]:
    """Mean difference to the reference over seeds, of every variant and child, paired by seed.

    One interval is over seeds, the other over the test images, whose share of right answers
    is that of all seeds. Switching calibration off needs no training: it is `full` with the
    biggest child's statistics, whose answers to single images are not kept.
    """
    from bignas_tf.intervals import paired_interval, t_interval

    ablations, effects = Ablations(folder), []
    for variant in (*ablations.variants, "no_calibration"):
        trained = variant if variant in ablations.variants else FULL
        reference = REFERENCE_VARIANT.get(variant, FULL)
        for child in (*ablations.children, Ablations.MEAN):
            column = "top1" if trained == variant else "top1_uncalibrated"
            own, other = ablations.top1(trained, child, column), ablations.top1(reference, child)
            shared = [seed for seed in own if seed in other]
            if not shared:
                continue
            effect = {"variant": variant, "child": child, "reference": reference}
            effect["seeds"] = " ".join(shared)
            effect["top1"] = str(statistics.mean(own[seed] for seed in shared))
            differences = [own[seed] - other[seed] for seed in shared]
            seeds: tuple[object, ...] = ("", "")
            images: tuple[object, ...] = ("", "")
            if len(shared) > 1:
                seeds = t_interval(differences)
            if trained == variant:
                pair = (ablations.right(name, child, shared) for name in (variant, reference))
                images = paired_interval(*pair)
            values = (statistics.mean(differences), *seeds, *images)
            effect |= dict(zip(EFFECT, map(str, values), strict=True))
            for name in ("device", "train_seconds"):
                effect[name] = "; ".join(dict.fromkeys(ablations.about(trained, name)))
            effects.append(effect)
    return effects


def calibration_means(rows: Sequence[Row]) -> list[Row]:
    """Mean and standard deviation over draws."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        key = tuple(row[k] for k in ("child", "preprocessing", "method", "images"))
        found.setdefault(key, []).append(float(row["top1"]))
    return [
        {
            "child": child, "preprocessing": preprocessing, "method": method, "images": images,
            "top1": str(statistics.mean(values)),
            "spread": str(statistics.stdev(values) if len(values) > 1 else 0.0),
        }
        for (child, preprocessing, method, images), values in found.items()
    ]  # fmt: skip


def convergence(workdir: pathlib.Path, part: str) -> list[Row]:
    """Held-out accuracy of both ends after every epoch, of all finished runs that measured it."""
    found = []
    for run, row in {_run(row): row for row in _rows(workdir / part)}.items():
        path = workdir / part / run / "log.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            about = {"part": part, "variant": row["variant"], "seed": row["seed"]}
            about |= {"epoch": str(entry["epoch"])}
            found += [
                {
                    **about, "child": child, "held_out_top1": str(entry[f"accuracy/{child}"]),
                    "train_seconds": row["train_seconds"], "device": row["device"],
                }
                for child in ("biggest", "smallest")
                if f"accuracy/{child}" in entry
            ]  # fmt: skip
    return found


# Markdown ------------------------------------------------------------------------------------


def _percent(value: str) -> str:
    return f"{100 * float(value):.2f}" if value else ""


def _points(row: Row) -> str:
    """Difference with its interval, in points."""
    text = f"{100 * float(row['difference']):+.2f}"
    if row["difference_low"]:
        low, high = (100 * float(row[f"difference_{end}"]) for end in ("low", "high"))
        text += f" ({low:+.2f} to {high:+.2f})"
    return text


def _main_lines(rows: Sequence[Row]) -> list[list[str]]:
    head = ["child", "MMACs", "params", "px", "top-1", "95 % over images", "biggest's statistics"]
    body = [
        [
            row["child"], f"{float(row['mmacs']):.2f}", f"{float(row['params_m']):.3f} M",
            row["resolution"], _percent(row["top1"]),
            f"{_percent(row['top1_low'])} to {_percent(row['top1_high'])}",
            _percent(row["top1_uncalibrated"]),
        ]
        for row in rows
    ]  # fmt: skip
    return [head, *body]


def _compared_lines(rows: Sequence[Row]) -> list[list[str]]:
    body = [
        [row["child"], row["variant"], _percent(row["top1"]), _percent(row["reference_top1"]),
         _points(row)]
        for row in rows
    ]  # fmt: skip
    return [["child", "variant", "top-1", "sliced", "difference (95 % over images)"], *body]


def _rate_lines(rows: Sequence[Row]) -> list[list[str]]:
    children = list(dict.fromkeys(row["child"] for row in rows))
    lines: dict[str, list[str]] = {}
    for row in rows:
        lines.setdefault(row["variant"], []).append(_percent(row["held_out_top1"]))
    return [["variant", *children], *([variant, *top1] for variant, top1 in lines.items())]


def _effect_lines(rows: Sequence[Row]) -> list[list[str]]:
    children = list(dict.fromkeys(row["child"] for row in rows))
    head = ["variant", "against", "seeds", *(f"{child} (95 % over seeds)" for child in children)]
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        some = {row["child"]: row for row in rows if row["variant"] == variant}
        first = next(iter(some.values()))
        seeds = max(len(row["seeds"].split()) for row in some.values())
        line = [variant, "" if variant == FULL else first["reference"], str(seeds)]
        for child in children:
            row = some.get(child)
            top1 = _percent(row["top1"]) if row else ""
            line.append(top1 if row is None or variant == FULL else f"{top1}: {_points(row)}")
        lines.append(line)
    return [head, *lines]


def _calibration_lines(rows: Sequence[Row]) -> list[list[str]]:
    columns = list(dict.fromkeys((r["child"], r["preprocessing"], r["method"]) for r in rows))
    lines: dict[str, dict[tuple[str, ...], str]] = {}
    for row in rows:
        key = (row["child"], row["preprocessing"], row["method"])
        cell = f"{_percent(row['top1'])} ± {_percent(row['spread'])}"
        lines.setdefault(row["images"], {})[key] = cell
    body = [[images, *(cells.get(c, "") for c in columns)] for images, cells in lines.items()]
    return [["images", *(", ".join(column) for column in columns)], *body]
