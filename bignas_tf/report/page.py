"""The page itself."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import importlib.util
import json
import os
import shlex
from pathlib import Path
from typing import Any

from bignas_tf.files import check_output, staged
from bignas_tf.optional import CHECKOUT, pip_install, require_package
from bignas_tf.report.inputs import Record, Run, read_run
from bignas_tf.report.tables import (
    children_table,
    environment_table,
    files_table,
    genotype_table,
    screening_table,
    timings_of,
)

_CLASSES = 20  # names of classes that the page spells out


def write_report(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    latency_prediction: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes one self-contained HTML page about a run.

    The page loads nothing and is whole without its script, which only tells about the point
    that is hovered over. For the same files it is the same. Parts that are not there yet
    are named, with the command that makes them.

    Args:
        workdir: the run's folder, with `run.json` and the files of `select/selected`
            at least.
        output: the `.html` file to write, `report.html` in `workdir` by default. An older
            one is replaced.
        latency_prediction: CSV or JSON of `benchmarks/latency_prediction.py`, to draw; by
            default `latency_prediction.csv` in `workdir`, if there is one.

    Returns:
        The page's path.

    Raises:
        ReportError: a ValueError, if a file of the run is missing or damaged.
        ValueError: if `output` does not end in .html.
        OSError: if the page cannot be written.
        ModuleNotFoundError: if matplotlib or jinja2 is not installed.
    """
    _require_packages()
    run = read_run(Path(workdir), None if latency_prediction is None else Path(latency_prediction))
    path = run.workdir / "report.html" if output is None else Path(output)
    if path.suffix != ".html":
        raise ValueError(f"`output` must end in .html. Received: {path}")
    check_output(path, overwrite=True)
    page = _page(run)
    with staged(path) as (temporary,):
        temporary.write_text(page, encoding="utf-8")
    return path


def _require_packages() -> None:
    for package in ("jinja2", "matplotlib"):
        require_package(package, "report", "The report")


def _page(run: Run) -> str:
    import jinja2

    from bignas_tf.report.child_picture import draw_children
    from bignas_tf.report.cost_plot import draw_costs
    from bignas_tf.report.drawing import PALETTE
    from bignas_tf.report.front_plot import draw_front
    from bignas_tf.report.hypervolume_plot import draw_hypervolume
    from bignas_tf.report.latency_plot import draw_latency
    from bignas_tf.report.training_plot import draw_training

    template = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["source_hash"] = _source_hash
    return environment.from_string(template).render(
        palette=PALETTE,
        title=f"BigNAS run: {run.workdir.resolve().name}",
        summary=_summary(run),
        front=draw_front(run) if run.selected or run.points or run.front else None,
        costs=draw_costs(run),
        hypervolume=draw_hypervolume(run.points),
        screening=screening_table(run) if run.screenings else None,
        children=children_table(run) if run.selected else None,
        pictures=draw_children(run.selected),
        genotypes=genotype_table(run) if run.selected else None,
        files=files_table(run) if run.files else None,
        timing=_timing_conditions(run),
        latency=draw_latency(run.predictions),
        training=draw_training(run.log),
        distilled=run.records[0].recipe.get("distillation") is True,
        evaluation=run.evaluation,
        classes=_classes(run),
        phases=_phases(run),
        records=[_record(record) for record in run.records],
        environment=environment_table(run.records),
        recipe=json.dumps(run.records[0].recipe, indent=2, ensure_ascii=False),
        missing=_missing(run),
        not_measured=_not_measured(run),
    )


def _source_hash(script: str) -> str:
    """How a content security policy names the one script that may run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _summary(run: Run) -> str:
    """One sentence: the space, the supernet's ends, how many children were exported."""
    space = run.records[0].recipe.get("space")
    parts = [f"One supernet of the space “{space}”" if isinstance(space, str) else "One supernet"]
    if run.points:
        parts[0] += f", {len(run.points)} of its children evaluated without retraining"
    if run.evaluation:
        images = f"{run.evaluation.images} {run.evaluation.split} images"
        ends = [
            f"its {name} child gets {100 * tested.top1:.1f} %"
            for name, tested in run.evaluation.references.items()
        ]
        if ends:
            parts.append(" and ".join(ends).replace("and its", "and the") + f" of {images} right")
    exported = len({file.child for file in run.files})
    parts.append(
        f"{len(run.selected)} children selected, {exported or 'none'} exported to TFLite"
        if len(run.selected) != 1
        else f"1 child selected, {exported or 'none'} exported to TFLite"
    )
    return parts[0] + ": " + "; ".join(parts[1:]) + "."


def _classes(run: Run) -> str:
    """Names of the classes, the first of many."""
    if run.evaluation is None or not run.evaluation.classes:
        return ""
    names = run.evaluation.classes
    shown = ", ".join(names[:_CLASSES])
    more = f" and {len(names) - _CLASSES} more" if len(names) > _CLASSES else ""
    return f"{len(names)} classes: {shown}{more}."


def _phases(run: Run) -> str:
    """How many children each phase of the selection evaluated."""
    counts: dict[str, int] = {}
    for point in run.points:
        if point.phase:
            counts[point.phase] = counts.get(point.phase, 0) + 1
    return ", ".join(f"{phase} {count}" for phase, count in counts.items())


def _timing_conditions(run: Run) -> str:
    """What the times were taken on, from the rows that the page shows."""
    shown = [timing for file in run.files for timing in timings_of(run, file)]
    if not shown:
        return ""
    names = {"ai_edge_litert": "LiteRT", "load_1min": "load"}
    parts = []
    for key in dict.fromkeys(key for timing in shown for key in timing.conditions):
        values = dict.fromkeys(timing.conditions.get(key, "?") for timing in shown)
        parts.append(f"{names.get(key, key)} {', '.join(values)}")
    return "; ".join(parts)


def _record(record: Record) -> dict[str, Any]:
    seeds = ", ".join(f"{purpose} {seed}" for purpose, seed in record.seeds.items())
    return {
        "name": record.name,
        "started": record.started or "not recorded",
        "command": record.command,
        "seeds": seeds or "none recorded",
    }


def _missing(run: Run) -> dict[str, tuple[str, str]]:
    """What is not there: part of the page -> what to say, command that makes it."""
    stale = any(timing.file == file.name for timing in run.timings for file in run.files)
    timed = any(timings_of(run, file) for file in run.files)
    parts = {
        "log": (run.log, "No training log", "train"),
        "points": (run.points, "No list of evaluated children", "select"),
        "evaluation": (run.evaluation, "Not evaluated on test images yet", "evaluate"),
        "files": (run.files, "Not exported yet", "convert"),
        "timings": (
            timed,
            "The benchmark timed other files than those here"
            if stale and not timed
            else "Not benchmarked yet",
            "benchmark",
        ),
    }
    folder = shlex.quote(str(run.workdir))
    missing = {
        part: (text, f"bignas {command} --workdir={folder}")
        for part, (there, text, command) in parts.items()
        if not there
    }
    if run.points and importlib.util.find_spec("moocore") is None:
        text = f"The course of the hypervolume is not drawn without moocore; {CHECKOUT}"
        missing["hypervolume"] = text, pip_install("search")
    return missing


def _not_measured(run: Run) -> list[str]:
    """Limits of what is on the page."""
    gaps = ["The spread between runs: this is one training run."]
    if run.outdated:
        outdated = ", ".join(run.outdated)
        gaps.append(f"Left out, of a child of the same name but another genotype: {outdated}.")
    tested = run.evaluation.children if run.evaluation else {}
    names = [child.name for child in run.selected if child.name not in tested]
    if names and run.evaluation:
        gaps.append(f"Test accuracy of {', '.join(names)}.")
    exported = {file.child for file in run.files}
    names = [child.name for child in run.selected if child.name not in exported]
    if names and run.files:
        gaps.append(f"{', '.join(names)} as TFLite: not exported.")
    if run.files:
        images = max(file.images for file in run.files)
        gaps.append(
            "Accuracy of the TFLite files: their outputs were compared with the Keras model's "
            f"on up to {images} images."
        )
    timed = [file.name for file in run.files if timings_of(run, file)]
    if timed:
        untimed = [file.name for file in run.files if file.name not in timed]
        if untimed:
            gaps.append(f"Latency of {', '.join(untimed)}.")
        gaps.append("Latency on a phone, and energy: times are of the machine named above.")
    if run.selected:
        gaps.append(
            "Held-out accuracy of the selected children is of the images that chose them, and "
            "so too high on average."
        )
    return gaps
