"""Tables of the page: children, genotypes, exported files, commands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bignas_tf.report.exports import ExportedFile, Timing
from bignas_tf.report.inputs import Record, Run, Tested
from bignas_tf.search.metrics import METRICS

NOTHING = "–"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        caption: what it shows.
        heads: of the columns, with units.
        numeric: for each column, whether it is right-aligned.
        groups: rows of cells; a rule separates one group from the next.
    """

    caption: str
    heads: list[str]
    numeric: list[bool]
    groups: list[list[list[str]]]


class _Builder:
    """Columns made from rows of one type."""

    def __init__(self, caption: str, rows: Sequence[Any]) -> None:
        self._caption = caption
        self._rows = rows
        self._columns: list[tuple[str, bool, list[str]]] = []

    def text(self, head: str, value: Callable[[Any], str]) -> None:
        """A column of text."""
        self._columns.append((head, False, [value(row) for row in self._rows]))

    def number(
        self, head: str, value: Callable[[Any], float | None], digits: int | None = None
    ) -> None:
        """A column of numbers with equally many decimals; left out if there are none."""
        values = [value(row) for row in self._rows]
        if all(number is None for number in values):
            return
        places = _decimals(values) if digits is None else digits
        cells = [NOTHING if number is None else f"{number:.{places}f}" for number in values]
        self._columns.append((head, True, cells))

    def figures(self, head: str, value: Callable[[Any], str]) -> None:
        """A column of right-aligned figures that are no single numbers."""
        cells = [value(row) for row in self._rows]
        if any(cell != NOTHING for cell in cells):
            self._columns.append((head, True, cells))

    def table(self, group: Callable[[Any], int] = lambda row: 0) -> Table:
        """The table, its rows in groups of ascending numbers."""
        heads, numeric, columns = zip(*self._columns, strict=True)
        groups: dict[int, list[list[str]]] = {}
        for row, cells in zip(self._rows, zip(*columns, strict=True), strict=True):
            groups.setdefault(group(row), []).append(list(cells))
        ordered = [groups[number] for number in sorted(groups)]
        return Table(self._caption, list(heads), list(numeric), ordered)


def _decimals(values: Iterable[float | None]) -> int:
    """Decimals that leave the largest value three digits and the smallest two."""
    sizes = [math.floor(math.log10(abs(value))) for value in values if value]
    if not sizes:
        return 0
    return max(0, 2 - max(sizes), 1 - min(sizes))


@dataclasses.dataclass(frozen=True)
class _Child:
    """A row of the table of children. `kind` 0: selected, 1: biggest and such, 2: baseline."""

    name: str
    kind: int
    budget: str = NOTHING
    resolution: int | None = None
    mmacs: float | None = None
    params_m: float | None = None
    accuracy: float | None = None
    tested: Tested | None = None
    latency: Timing | None = None


def children_table(run: Run) -> Table:
    """Selected children, then the supernet's ends and baselines for comparison."""
    rows = _children(run)
    split = run.evaluation.split if run.evaluation else "test"
    # Digits-size networks have thousands of parameters, not millions.
    large = any((row.params_m or 0) >= 1 for row in rows)
    scale, unit = (1, "M") if large else (1000, "k")
    builder = _Builder("Children", rows)
    builder.text("child", lambda row: row.name)
    builder.text("budget", lambda row: row.budget)
    builder.number("resolution (px)", lambda row: row.resolution, 0)
    builder.number("MMACs", lambda row: row.mmacs)
    builder.number(f"params ({unit})", lambda row: _scaled(row.params_m, scale))
    builder.number("held-out (%)", lambda row: _scaled(row.accuracy, 100), 1)
    builder.number(f"{split} (%)", lambda row: _of(row.tested, "top1"), 1)
    builder.figures("interval (%)", lambda row: _interval(row.tested))
    builder.number(f"{split}, not recalibrated (%)", lambda row: _of(row.tested, "uncalibrated"), 1)
    builder.number("median latency (ms)", lambda row: _figure(row.latency, "median_ms"))
    return builder.table(lambda row: row.kind)


def _children(run: Run) -> list[_Child]:
    evaluation = run.evaluation
    rows = []
    for child in run.selected:
        file = plain_file(run, child.name)
        timings = timings_of(run, file) if file else []
        rows.append(
            _Child(
                name=child.name,
                kind=0,
                budget=_budget(child.budget),
                resolution=child.resolution,
                mmacs=child.mmacs,
                params_m=child.params_m,
                accuracy=child.accuracy,
                tested=evaluation.children.get(child.name) if evaluation else None,
                latency=timings[0] if timings else None,
            )
        )
    if evaluation:
        for name, tested in evaluation.references.items():
            rows.append(_Child(name, 1, mmacs=tested.mmacs, tested=tested))
        for name, tested in evaluation.baselines.items():
            rows.append(_Child(name, 2, tested=tested))
    return rows


def plain_file(run: Run, child: str) -> ExportedFile | None:
    """The file that is a child as it is, not quantized, finetuned or with its preprocessing."""
    return next((file for file in run.files if file.child == child and file.plain), None)


def timings_of(run: Run, file: ExportedFile) -> list[Timing]:
    """Times of a file, fewest threads first; none of an earlier file of that name."""
    found = [timing for timing in run.timings if timing.file == file.name]
    found = [timing for timing in found if timing.file_bytes in (None, file.bytes)]
    found = [timing for timing in found if timing.sha256 in (None, file.sha256)]
    return sorted(found, key=lambda timing: timing.threads)


def _budget(budget: dict[str, float]) -> str:
    # The number stays with its sign and unit where a line breaks.
    limits = [
        f"≤\u00a0{value:g}\u00a0{METRICS[name].unit}"
        if name in METRICS
        else f"{name}\u00a0≤\u00a0{value:g}"
        for name, value in budget.items()
    ]
    return ", ".join(limits) or "none"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _figure(row: Any, attribute: str) -> float | None:
    return None if row is None else getattr(row, attribute)


def _of(tested: Tested | None, attribute: str) -> float | None:
    return _scaled(_figure(tested, attribute), 100)


def _interval(tested: Tested | None) -> str:
    if tested is None or tested.interval is None:
        return NOTHING
    low, high = tested.interval
    return f"{100 * low:.1f}–{100 * high:.1f}"


def screening_table(run: Run) -> Table:
    """How well the predictor did, a row per round."""
    builder = _Builder("Screening", run.screenings)
    builder.text("round", lambda row: row.phase)
    builder.figures("candidates evaluated", lambda row: f"{row.evaluated} of {row.candidates}")
    builder.text("chosen by the predictor", lambda row: "yes" if row.chose else "no")
    builder.number("Kendall's tau, cross-validated", lambda row: row.tau, 2)
    builder.figures(
        "on those evaluated",
        lambda row: NOTHING if row.fresh_tau is None else f"{row.fresh_tau:.2f}",
    )
    return builder.table()


def genotype_table(run: Run) -> Table:
    """One column per stage, so that children can be compared stage by stage."""
    described = {child.name: stages(child.genotype) for child in run.selected}
    groups = dict.fromkeys(group for words in described.values() for group in words)
    builder = _Builder("Genotypes", list(described))
    builder.text("child", str)
    for group in groups:
        builder.text(group, lambda name, group=group: described[name].get(group, NOTHING))  # type: ignore[misc]
    return builder.table()


def stages(genotype: dict[str, int]) -> dict[str, str]:
    """Words by stage or layer, such as `stage2` -> `24×2 k3 e6`.

    Width, depth, kernel size, expansion.
    """
    groups: dict[str, dict[str, int]] = {}
    for gene, value in genotype.items():
        group, _, kind = gene.rpartition("_")
        groups.setdefault(group or gene, {})[kind] = value
    return {group: _words(group, genes) for group, genes in groups.items()}


def _words(group: str, genes: dict[str, int]) -> str:
    if list(genes) == [group]:
        return str(genes[group])
    rest = dict(genes)
    width, depth = rest.pop("width", None), rest.pop("depth", None)
    words = [str(width)] if width is not None else []
    if depth is not None:
        words = ["".join(words) + f"×{depth}"]
    short = {"kernel": "k", "expand": "e"}
    words += [f"{short.get(name, name + ' ')}{value}" for name, value in rest.items()]
    return " ".join(words)


def files_table(run: Run) -> Table:
    """TFLite files: size, agreement with Keras, time; a row per number of threads."""
    rows: list[tuple[ExportedFile, Timing | None]] = []
    for file in _by_child(run):
        timings = timings_of(run, file)
        rows += [(file, timing) for timing in timings] if timings else [(file, None)]
    builder = _Builder("Exported files", rows)
    builder.text("file", lambda row: row[0].name)
    builder.text("quantization", lambda row: row[0].quantization)
    scale, unit = (1e6, "MB") if max(file.bytes for file in run.files) >= 1e7 else (1e3, "kB")
    builder.number(f"size ({unit})", lambda row: row[0].bytes / scale)
    builder.figures("largest difference to Keras", lambda row: f"{row[0].max_difference:.2g}")
    builder.figures("of the largest output (%)", lambda row: _relative(row[0]))
    builder.figures("same top class", lambda row: _agreement(row[0]))
    builder.number("median (ms)", lambda row: _figure(row[1], "median_ms"))
    builder.number("p95 (ms)", lambda row: _figure(row[1], "p95_ms"))
    builder.number("predicted (ms)", lambda row: _predicted(run, *row))
    builder.number("threads", lambda row: _figure(row[1], "threads"), 0)
    order = _order(run)
    return builder.table(lambda row: order.get(row[0].child, len(order)))


def _predicted(run: Run, file: ExportedFile, timing: Timing | None) -> float | None:
    """What the search's table says, for times of such files on the machine of the table."""
    found = {child.name: child.latency_ms for child in run.selected}
    about = run.predicted_for
    if about is None or timing is None or file.quantization != about.quantization:
        return None
    same = (timing.threads, timing.conditions.get("cpu")) == (about.threads, about.cpu)
    return found.get(file.child) if same else None


def _by_child(run: Run) -> list[ExportedFile]:
    """In the order of the selected children, float32 first."""
    order = _order(run)
    return sorted(
        run.files,
        key=lambda file: (order.get(file.child, len(order)), file.quantization != "float32"),
    )


def _order(run: Run) -> dict[str, int]:
    return {child.name: i for i, child in enumerate(run.selected)}


def _relative(file: ExportedFile) -> str:
    return f"{100 * file.max_difference / file.scale:.2g}" if file.scale else NOTHING


def _agreement(file: ExportedFile) -> str:
    return f"{round(file.agreement * file.images)} of {file.images}"


def environment_table(records: Sequence[Record]) -> Table:
    """Versions, threads and machine of the training; of later commands what differs."""
    first, *later = records
    keys = list(dict.fromkeys(key for record in records for key in record.environment))

    def value(record: Record, key: str) -> str:
        return record.environment.get(key, "not recorded")

    rows = []
    for key in keys:
        others = [f"{r.name}: {value(r, key)}" for r in later if value(r, key) != value(first, key)]
        rows.append([key, "; ".join([value(first, key), *others])])
    return Table("Environment", ["what", "value"], [False, False], [rows])
