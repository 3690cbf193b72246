"""Times of single operators, as TensorFlow Lite's and LiteRT's profilers print them."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bignas_tf.files import staged

# The native tool prints one profile of its initialization and one of the timed runs.
_TIMED_RUNS = "Operator-wise Profiling Info for Regular Benchmark Runs"


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of a profile.

    Attributes:
        kind: str, such as `"CONV_2D"` or `"Convolution (NHWC, F32) GEMM"`.
        name: str, what the profiler calls this one.
        ms: float, average milliseconds of an invocation.
    """

    kind: str
    name: str
    ms: float


def parse_profile(text: str) -> list[Operator]:
    """Reads the profiler's table "Run Order".

    The columns differ between versions (older ones have `[start]`), so that the
    header says where the average is.

    Args:
        text: the output that holds the table.

    Returns:
        The operators in the order in which they ran; empty if there is no table.
    """
    text = text[max(text.rfind(_TIMED_RUNS), 0) :]
    lines = iter(text.splitlines())
    for line in lines:
        if re.search(r"=+ Run Order =+", line):
            return list(_rows(lines))
    return []


def _rows(lines: Iterable[str]) -> Iterable[Operator]:
    row: re.Pattern[str] | None = None
    average = 0
    for line in lines:
        if row is None:
            columns = re.findall(r"\[[^\]]+\]", line)
            if "[avg ms]" not in columns:
                return
            average = columns.index("[avg ms]") - 1
            # The first and the last column are text; a kind may hold spaces and digits.
            row = re.compile(rf"(.*\S)((?:\s+[\d.]+%?){{{len(columns) - 2}}})\s+(\S.*)")
            continue
        found = row.search(re.sub(r"^.*?INFO:", "", line).strip())
        if not found:
            return
        kind, numbers, name = found.groups()
        yield Operator(kind, name.strip(), float(numbers.split()[average].rstrip("%")))


def by_kind(operators: Sequence[Operator]) -> dict[str, float]:
    """The milliseconds of each kind of operator, the largest first."""
    sums: dict[str, float] = {}
    for operator in operators:
        sums[operator.kind] = sums.get(operator.kind, 0.0) + operator.ms
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def write_profile(operators: Sequence[Operator], path: Path) -> None:
    """Writes one CSV row per operator, in the order in which they run.

    Args:
        operators: of one file.
        path: the CSV, replaced if it exists.

    Raises:
        OSError: if it cannot be written.
    """
    total = sum(operator.ms for operator in operators)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("order", "kind", "name", "ms", "share"))
    for order, operator in enumerate(operators):
        share = operator.ms / total if total else 0.0
        rows.writerow((order, operator.kind, operator.name, round(operator.ms, 5), round(share, 5)))
    with staged(path) as (temporary,):
        temporary.write_text(text.getvalue(), encoding="utf-8")
