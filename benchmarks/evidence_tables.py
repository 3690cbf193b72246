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


def write(workdir: pathlib.Path, results: pathlib.Path, plots: pathlib.Path) -> None:
    """Writes what is there, and prints it as Markdown."""
    results.mkdir(parents=True, exist_ok=True)
    plots.mkdir(parents=True, exist_ok=True)
    main, averaged = (_rows(workdir / part) for part in ("main", "averaged"))
    for part, rows in (("main", main), ("averaged", averaged)):
        if rows:
            _save(results, part, rows, workdir / part)
            _print(f"Children sliced, {part}", _main_lines(rows))
    compared: dict[str, list[Row]] = {}
    for part in ("finetuning", "alone"):
        compared[part] = _against_main(workdir, part)
        if compared[part]:
            _save(results, part, compared[part], workdir / part)
            _print(part.capitalize(), _compared_lines(compared[part]))
    ablations = _rows(workdir / "ablations")
    if ablations:
        _save(results, "ablations", ablations, workdir / "ablations")
        effects = ablation_effects(ablations)
        _save(results, "ablation_effects", effects, workdir / "ablations")
        _print("Ablations", _effect_lines(effects))
    calibration = _read(workdir / "calibration.csv")
    if calibration and main:
        means = calibration_means(calibration)
        _save(results, "calibration", calibration, workdir / "main")
        _print("Calibration", _calibration_lines(means))
    curves = []
    for part in ("main", "ablations"):
        some = convergence(workdir, part)
        if some and _rows(workdir / part):  # else nothing tells the conditions yet
            _save(results, f"convergence_{part}", some, workdir / part)
            curves += some
    from evidence_plots import draw_convergence, draw_front

    if main:
        draw_front(main, averaged, compared["alone"], plots / "evidence_front.png")
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
    command = f"python benchmarks/evidence.py --data=DATA --workdir=DIR --parts={part}"
    rows = [{**row, "command": command} for row in rows]
    columns = list(rows[0])
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _conditions(sweep: pathlib.Path) -> str:
    row = _rows(sweep)[0]
    run = json.loads((sweep / f"{row['variant']}-seed{row['seed']}" / "sweep.json").read_text())
    epochs = run["settings"]["recipe"]["epochs"]
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
    """The child that each variant is about, with its difference to the same child of main.

    The interval is paired over the test images; it does not know of other seeds.
    """
    from bignas_tf.intervals import paired_interval

    main = {row["child"]: row for row in _rows(workdir / "main")}
    found = []
    for row in _rows(workdir / part):
        joint = row["variant"].endswith(SMALLEST)
        if row["child"] != ("smallest" if joint else "biggest"):
            continue
        child = row["variant"].split("-")[0]
        folder = workdir / part / f"{row['variant']}-seed{row['seed']}"
        right = _right(folder, row["child"])
        reference = _right(workdir / "main" / "full-seed0", child)
        low, high = paired_interval(right, reference)
        values = (
            main[child]["top1"], f"{right.mean() - reference.mean():.6f}", f"{low:.6f}",
            f"{high:.6f}",
        )  # fmt: skip
        found.append({**row, "child": child, **dict(zip(COMPARED, values, strict=True))})
    return found


def ablation_effects(rows: Sequence[Row]) -> list[Row]:
    """Mean difference to `full` over seeds, of every variant and child, paired by seed.

    Switching calibration off needs no training: it is `full` with the biggest child's
    statistics.
    """
    from bignas_tf.intervals import t_interval

    def values(variant: str, child: str, column: str = "top1") -> dict[str, float]:
        chosen = (r for r in rows if (r["variant"], r["child"]) == (variant, child))
        return {row["seed"]: float(row[column]) for row in chosen if row[column]}

    variants = list(dict.fromkeys(row["variant"] for row in rows))
    children = list(dict.fromkeys(row["child"] for row in rows))
    effects = []
    for variant in (*variants, "no_calibration"):
        for child in children:
            full = values("full", child)
            own = values(variant, child)
            if variant == "no_calibration":
                own = values("full", child, "top1_uncalibrated")
            shared = [seed for seed in own if seed in full]
            if not shared:
                continue
            differences = [own[seed] - full[seed] for seed in shared]
            low, high = t_interval(differences) if len(shared) > 1 else ("", "")
            effects.append(
                {
                    "variant": variant,
                    "child": child,
                    "seeds": " ".join(shared),
                    "top1": str(statistics.mean(own[seed] for seed in shared)),
                    "difference": str(statistics.mean(differences)),
                    "difference_low": str(low),
                    "difference_high": str(high),
                }
            )
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
    """Held-out accuracy of both ends after every epoch, of all runs that measured it."""
    found = []
    for path in sorted((workdir / part).glob("*/log.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            found += [
                    {
                        "part": part, "run": path.parent.name, "epoch": str(entry["epoch"]),
                        "child": child, "held_out_top1": str(entry[f"accuracy/{child}"]),
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


def _effect_lines(rows: Sequence[Row]) -> list[list[str]]:
    children = list(dict.fromkeys(row["child"] for row in rows))
    head = ["variant", "seeds", *(f"{child} (95 % over seeds)" for child in children)]
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        some = {row["child"]: row for row in rows if row["variant"] == variant}
        seeds = max(len(row["seeds"].split()) for row in some.values())
        line = [variant, str(seeds)]
        for child in children:
            row = some.get(child)
            top1 = _percent(row["top1"]) if row else ""
            line.append(top1 if row is None or variant == "full" else f"{top1}: {_points(row)}")
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
