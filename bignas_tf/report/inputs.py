"""What a run folder holds, read and checked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bignas_tf.report.exports import ExportedFile, Timing, read_exported, read_timings
from bignas_tf.report.fields import Fields, ReportError, read_csv, read_json, read_json_lines
from bignas_tf.report.predictions import (
    PredictedFor,
    Prediction,
    read_predicted_for,
    read_predictions,
)
from bignas_tf.report.screenings import Screened, read_screenings
from bignas_tf.search.metrics import LATENCY
from bignas_tf.search.pareto import front
from bignas_tf.search.results import TRIALS, WEIGHTS
from bignas_tf.spec import NetworkSpec

PREDICTIONS = "latency_prediction.csv"


@dataclasses.dataclass(frozen=True)
class Record:
    """How one command was started: run.json or run.COMMAND.json.

    Attributes:
        name: of the command, such as `train`.
        started: UTC, ISO 8601; empty if not recorded.
        command: the command line.
        seeds: by purpose.
        recipe: all hyper-parameters.
        environment: one-line values of `versions`, `threads` and `machine`, by key.
    """

    name: str
    started: str
    command: str
    seeds: dict[str, Any]
    recipe: dict[str, Any]
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True)
class LogLine:
    """Scalars of one training step, by name."""

    epoch: float
    scalars: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Point:
    """A child that the selection evaluated.

    Attributes:
        number: of the evaluation, from 1.
        mmacs: millions of multiply-accumulates.
        accuracy: share of held-out images.
        phase: of the search; may be empty.
        genotype: value by gene.
        figures: what else was measured or limited, by name, where it is finite.
    """

    number: int
    mmacs: float
    accuracy: float
    phase: str
    genotype: dict[str, int]
    figures: dict[str, float]

    def cost(self, name: str) -> float | None:
        """Its MMACs or another figure; None if that is not known."""
        return self.mmacs if name == "mmacs" else self.figures.get(name)


@dataclasses.dataclass(frozen=True)
class Selected:
    """A child that the selection chose; `latency_ms`, predicted, where that was limited."""

    name: str
    budget: dict[str, float]
    genotype: dict[str, int]
    spec: NetworkSpec
    resolution: int
    mmacs: float
    params_m: float
    accuracy: float
    latency_ms: float | None = None


@dataclasses.dataclass(frozen=True)
class Tested:
    """Shares of test images that a network gets right.

    `mmacs` and `genotype` where they are recorded.
    """

    top1: float
    uncalibrated: float | None = None
    interval: tuple[float, float] | None = None
    mmacs: float | None = None
    genotype: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Accuracy on images that neither training nor selection saw.

    Attributes:
        split: such as `test`.
        images: how many.
        classes: their names.
        children: by name.
        references: `biggest` and `smallest`, those that were evaluated.
        baselines: other models, by name.
    """

    split: str
    images: int
    classes: list[str]
    children: dict[str, Tested]
    references: dict[str, Tested]
    baselines: dict[str, Tested]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder. Of what is not there the collections are empty, all else None.

    `outdated` names what is left out: figures of a child that had another genotype.
    """

    workdir: Path
    records: list[Record]
    selected: list[Selected]
    log: list[LogLine]
    points: list[Point]
    front: list[Point]
    screenings: list[Screened]
    evaluation: Evaluation | None
    files: list[ExportedFile]
    timings: list[Timing]
    predictions: list[Prediction]
    predicted_for: PredictedFor | None
    outdated: list[str]

    def names_of(self, point: Point) -> list[str]:
        """Of the selected children with the genotype of an evaluated one."""
        return [child.name for child in self.selected if child.genotype == point.genotype]


def read_run(workdir: Path, predictions: Path | None = None) -> Run:
    """Reads everything in a run folder that the report shows.

    Args:
        workdir: the folder. `run.json` and the files of `select/selected` must be there.
        predictions: latency predicted and measured; None for `PREDICTIONS` in the folder, if
            that is there.

    Returns:
        The run.

    Raises:
        ReportError: if one of these is missing, or any file is damaged.
    """
    if not workdir.is_dir():
        raise ReportError(f"the run folder does not exist. Received: {workdir}")
    for needed, command in (("run.json", "train"), ("select/selected", "select")):
        if not (workdir / needed).exists():
            raise ReportError(f"{workdir / needed} is missing; `bignas {command}` writes it")
    selected = _selected(workdir / "select" / "selected")
    limited = dict.fromkeys(name for child in selected for name in child.budget)
    points = _points(workdir / "select", limited)
    evaluation = _evaluation(workdir / "evaluation.json")
    inside = workdir / PREDICTIONS
    drawn = predictions or (inside if inside.is_file() else None)
    files = [read_exported(path) for path in sorted(workdir.glob("*.tflite"))]
    chosen = {child.name: child.genotype for child in selected}

    def current(child: str, genotype: dict[str, Any] | None) -> bool:
        return genotype is None or chosen.get(child, genotype) == genotype

    outdated = [file.name for file in files if not current(file.child, file.genotype)]
    if evaluation:
        tested = {k: v for k, v in evaluation.children.items() if current(k, v.genotype)}
        outdated += [f"test accuracy of {k}" for k in evaluation.children if k not in tested]
        evaluation = dataclasses.replace(evaluation, children=tested)
    return Run(
        workdir=workdir,
        records=_records(workdir),
        selected=selected,
        log=[_log_line(line) for line in read_json_lines(workdir / "log.jsonl")],
        points=points,
        front=_front(points),
        screenings=read_screenings(workdir / "select" / "screening.csv"),
        evaluation=evaluation,
        files=[file for file in files if file.name not in outdated],
        timings=read_timings(workdir / "benchmark.csv"),
        predictions=read_predictions(drawn) if drawn else [],
        predicted_for=read_predicted_for(workdir / "select" / WEIGHTS),
        outdated=outdated,
    )


def _records(workdir: Path) -> list[Record]:
    """The training's record, then those of the later commands in the order of their start."""
    first = _record(workdir / "run.json", "train")
    later = [_record(path, path.name.split(".")[1]) for path in sorted(workdir.glob("run.*.json"))]
    return [first, *sorted(later, key=lambda record: record.started)]


def _record(path: Path, name: str) -> Record:
    fields = Fields(read_json(path), path)
    environment: dict[str, str] = {}
    for group in ("versions", "threads", "machine"):
        if group in fields:
            values = fields.object(group).plain()
            # 0 threads is TensorFlow's own choice, None a variable that is not set.
            environment |= {key: "not set" if v is None else str(v) for key, v in values.items()}
    return Record(
        name=name,
        started=fields.text("started") if "started" in fields else "",
        command=fields.text("command"),
        seeds=fields.object("seeds").plain() if "seeds" in fields else {},
        recipe=fields.object("recipe").plain() if "recipe" in fields else {},
        environment=environment,
    )


def _log_line(fields: Fields) -> LogLine:
    fields.integer("step")
    names = [name for name in fields if name.startswith(("loss", "accuracy/")) and name in fields]
    if "images_per_second" in fields:
        names.append("images_per_second")
    return LogLine(fields.number("epoch", 0), {name: fields.logged(name) for name in names})


def _points(folder: Path, limited: Iterable[str]) -> list[Point]:
    """The evaluations, with what was limited, which is in the table that people read."""
    lines = enumerate(read_json_lines(folder / "points.jsonl"), start=1)
    points = [_point(number, line) for number, line in lines]
    for point, row in zip(points, read_csv(folder / TRIALS), strict=False):
        known = {"mmacs", *point.figures}
        names = [name for name in limited if name not in known and row.given(name)]
        point.figures.update({name: row.written(name, 0) for name in names})
    return points


def _point(number: int, fields: Fields) -> Point:
    known = ("mmacs", "accuracy", "phase", "genotype", "split")
    genotype = fields.object("genotype")
    others = {name: fields.logged(name) for name in fields if name in fields and name not in known}
    return Point(
        number=number,
        mmacs=fields.number("mmacs", 0),
        accuracy=fields.share("accuracy"),
        phase=fields.text("phase") if "phase" in fields else "",
        genotype={gene: genotype.integer(gene) for gene in genotype},
        figures={name: value for name, value in others.items() if math.isfinite(value)},
    )


def _front(points: list[Point]) -> list[Point]:
    """The points of the front by ascending MMACs."""
    measured: list[dict[str, Any]] = [
        {"mmacs": point.mmacs, "accuracy": point.accuracy, "point": point} for point in points
    ]
    return [each["point"] for each in front(measured)]


def _selected(folder: Path) -> list[Selected]:
    """The chosen children in the order of their budgets."""
    files = [Fields(read_json(path), path) for path in sorted(folder.glob("*.json"))]
    found: dict[str, Selected] = {}
    for fields in sorted(files, key=lambda fields: fields.integer("order")):
        name = fields.text("name")
        if name in found:
            raise fields.error("`name` must be another than those before", name)
        budget = fields.object("budget") if "budget" in fields else Fields({}, folder)
        genotype = fields.object("genotype")
        found[name] = Selected(
            name=name,
            budget={key: budget.number(key) for key in budget if key in budget},
            genotype={gene: genotype.integer(gene) for gene in genotype},
            spec=_spec(fields),
            resolution=fields.integer("resolution", 1),
            mmacs=fields.number("mmacs", 0),
            params_m=fields.number("params_m", 0),
            accuracy=fields.share("accuracy"),
            latency_ms=fields.number(LATENCY, 0) if LATENCY in fields else None,
        )
    return list(found.values())


def _spec(fields: Fields) -> NetworkSpec:
    try:
        return NetworkSpec.from_json(fields.object("spec").plain())
    except ReportError:
        raise
    except ValueError as error:
        raise fields.error(f"`spec` must be a network: {error}", fields.value("spec")) from error


def _evaluation(path: Path) -> Evaluation | None:
    if not path.is_file():
        return None
    fields = Fields(read_json(path), path)
    children, baselines = fields.object("children"), Fields({}, path)
    if "baselines" in fields:
        baselines = fields.object("baselines")
    references = [name for name in ("biggest", "smallest") if name in fields]
    return Evaluation(
        split=fields.text("split"),
        images=fields.integer("images", 1),
        classes=[str(name) for name in fields.items("classes")] if "classes" in fields else [],
        children={name: _tested(children.object(name)) for name in children},
        references={name: _tested(fields.object(name)) for name in references},
        baselines={name: _tested(baselines.object(name)) for name in baselines},
    )


def _tested(fields: Fields) -> Tested:
    interval = None
    if "top1_interval" in fields:
        ends = fields.items("top1_interval")
        pair = Fields(dict(zip(("low", "high"), ends, strict=False)), fields.file, fields.where)
        low, high = pair.share("low"), pair.share("high")
        if len(ends) != 2 or low > high:
            raise fields.error("`top1_interval` must be two ascending numbers", ends)
        interval = (low, high)
    return Tested(
        top1=fields.share("top1"),
        uncalibrated=fields.share("top1_uncalibrated") if "top1_uncalibrated" in fields else None,
        interval=interval,
        mmacs=fields.number("mmacs", 0) if "mmacs" in fields else None,
        genotype=fields.object("genotype").plain() if "genotype" in fields else None,
    )
