"""Accuracy, size and latency of a run's children in every quantization.

Converts each extracted child as `bignas convert` does and finetunes it quantization-aware as
`bignas finetune` does, runs each file on all test images with LiteRT, and times all of them in
turns until the 95 % intervals of the medians are narrow (`steady`). A row per file goes to
--csv as soon as its accuracy is known; the same command goes on, and times all files anew. Times
are comparable only among the files of one call, on a machine that does nothing else.

python benchmarks/quantizations.py --workdir=runs/cifar10 --csv=quantizations.csv
"""

import csv
import hashlib
import json
import pathlib
import subprocess
import sys
import types

from absl import app, flags

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_DATA = flags.DEFINE_string("data", None, "Source, if it has moved since the training.")
_KINDS = flags.DEFINE_list(
    "quantizations",
    ["float32", "float16", "dynamic", "int8", "int8_float_io", "int16x8", "qat_int8"],
    "What to make of each child.",
)
_EPOCHS = flags.DEFINE_float("epochs", 2.0, "Of quantization-aware finetuning.", lower_bound=0.0)
_SPREAD = flags.DEFINE_float("spread", 0.02, "Of each median, relative: when to stop timing.")
_SECONDS = flags.DEFINE_float("seconds", 300.0, "How long to go on for that.", lower_bound=0.0)
_CSV = flags.DEFINE_string("csv", None, "Where the rows go.", required=True)
_TRAINED = "qat_int8"
COLUMNS = (
    "child", "quantization", "top1", "top1_low", "top1_high", "points_to_float32", "test_images",
    "bytes", "median_ms", "spread", "steady", "rounds", "runs", "threads", "agreement",
    "outside_xnnpack", "sha256", "cpu", "cores", "load_1min", "system", "python",
    "ai_edge_litert", "date",
)  # fmt: skip
Row = dict[str, object]


def _bignas(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bignas_tf.cli", *arguments], check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.returncode)


def _is_of(path: pathlib.Path, child: pathlib.Path) -> bool:
    """Whether a file is there, and was made of the child as it is now."""
    described = path.with_suffix(".json")
    if not path.exists() or not described.exists():
        return False
    made, now = (
        json.loads(one.read_text(encoding="utf-8"))
        for one in (described, child.with_suffix(".json"))
    )
    return all(made.get(key) == now[key] for key in ("weights", "genotype", "calibration"))


def make_files(
    workdir: pathlib.Path, children: list[pathlib.Path]
) -> dict[tuple[str, str], pathlib.Path]:
    """Every file by child and quantization; those that are there are kept."""
    from bignas_tf.deploy.formats import default_name
    from bignas_tf.deploy.schemes import Quantization

    common = [f"--workdir={workdir}", *([f"--data={_DATA.value}"] if _DATA.value else [])]
    files = {
        (child, kind): workdir / default_name(child.stem, "tflite", Quantization(kind))
        for child in children
        for kind in _KINDS.value
    }
    for kind in _KINDS.value:
        missing = [child for child in children if not _is_of(files[child, kind], child)]
        if kind == _TRAINED:
            for child in missing:
                technique = ["--technique=quantize", f"--epochs={_EPOCHS.value:g}", "--overwrite"]
                _bignas("finetune", *common, f"--child={child.stem}", *technique)
        elif missing:
            _bignas("convert", *common, f"--quantization={kind}", "--overwrite")
    return {(child.stem, kind): path for (child, kind), path in files.items()}


class Table:
    """The rows so far, in their file."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.rows: dict[tuple[str, str], Row] = {}
        if path.exists():
            with path.open(encoding="utf-8", newline="") as text:
                for row in csv.DictReader(text):
                    self.rows[row["child"], row["quantization"]] = dict(row)

    def write(self) -> None:
        """Replaces the file, with the differences to float32 that are known."""
        from bignas_tf.files import replacing

        for (child, _), row in self.rows.items():
            reference = self.rows.get((child, "float32"))
            if reference:
                points = 100 * (float(row["top1"]) - float(reference["top1"]))
                row["points_to_float32"] = f"{points:+.2f}"
        with (
            replacing(self.path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as text,
        ):
            writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows.values())

    def lines(self) -> list[str]:
        """The table in Markdown."""
        head = "| child | quantization | top-1 | to float32 | kB | median ms | spread |"
        lines = [head + " outside XNNPACK |", "|---|---|---|---|---|---|---|---|"]
        for row in self.rows.values():
            kilobytes = float(row["bytes"]) / 1e3
            # A call that was stopped before it timed leaves none to the next, of fewer files.
            spread = f"{100 * float(row['spread']):.1f} %" if row["spread"] else ""
            lines.append(
                f"| {row['child']} | {row['quantization']} | {100 * float(row['top1']):.2f} % | "
                f"{row.get('points_to_float32', '')} | {kilobytes:.0f} | {row['median_ms']} | "
                f"{spread} | {row['outside_xnnpack']} |"
            )
        return lines


def measure_accuracy(table: Table, key: tuple[str, str], path: pathlib.Path, source) -> None:
    """Adds or keeps the row of one file."""
    from bignas_tf.deploy.file_evaluation import evaluate
    from bignas_tf.deploy.runner import open_model

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if key in table.rows and table.rows[key]["sha256"] == sha256:
        return
    found = evaluate(open_model(path), source, progress=True)
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    outside = described.get("delegate", {}).get("outside", {})
    low, high = found.top1_interval
    table.rows[key] = {
        "child": key[0],
        "quantization": key[1],
        "top1": found.top1,
        "top1_low": low,
        "top1_high": high,
        "test_images": found.images,
        "bytes": path.stat().st_size,
        "agreement": described["verification"]["agreement"],
        "outside_xnnpack": " ".join(f"{count} {name}" for name, count in outside.items()),
        "sha256": sha256,
    }
    table.write()
    print(f"{key[0]} {key[1]}: {found.summary()}", flush=True)


def main(argv: list[str]) -> None:
    """Makes the files, measures them, prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    from bignas_tf.checks import require_choice
    from bignas_tf.commands.run_folder import child_files, load_run
    from bignas_tf.deploy import latency
    from bignas_tf.deploy.schemes import Quantization
    from bignas_tf.files import check_output

    check_output(pathlib.Path(_CSV.value), overwrite=True)
    for kind in _KINDS.value:
        require_choice("quantizations", kind, tuple(each.value for each in Quantization))
    workdir = pathlib.Path(_WORKDIR.value)
    files = make_files(workdir, child_files(workdir))
    _, data = load_run(types.SimpleNamespace(workdir=workdir, data=_DATA.value))
    table = Table(pathlib.Path(_CSV.value))
    for key, path in files.items():
        measure_accuracy(table, key, path, data.source)
    conditions = latency.host_conditions()  # before the measurement, which is load too
    times = latency.measure(
        [str(path) for path in files.values()], spread=_SPREAD.value, seconds=_SECONDS.value
    )
    for key, time in zip(files, times, strict=True):
        table.rows[key] |= conditions | {
            "median_ms": f"{time.median_ms:.3f}",
            "spread": f"{time.spread:.4f}",
            "steady": time.steady,
            "rounds": time.rounds,
            "runs": time.runs,
            "threads": time.threads,
        }
    table.write()
    print("\n".join(table.lines()))


if __name__ == "__main__":
    app.run(main)
