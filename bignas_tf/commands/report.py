"""Writes one self-contained HTML page about a run.

The front as a plot, a table of the children (accuracy, MACs, parameters, latency, sizes),
the training curves, and how the run was made. Writes report.html to the run's folder.

Example:
  bignas report --workdir=runs/cifar10
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def add_arguments(parser: Any) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    parser.add_argument("--output", type=Path, help="file to write (default: report.html there)")
    parser.add_argument(
        "--latency_prediction",
        type=Path,
        help="CSV or JSON of benchmarks/latency_prediction.py, to draw (default: "
        "latency_prediction.csv there, if there is one)",
    )


def main(arguments: Any) -> None:
    """Runs the command."""
    from bignas_tf.report import write_report

    path = write_report(arguments.workdir, arguments.output, arguments.latency_prediction)
    print(f"report: {path}")
