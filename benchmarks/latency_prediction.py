r"""Latency predicted from a table of blocks against latency measured, on children it never saw.

    bignas latency-table --space=bignas --resolutions=224 --output=runs/bignas224.json
    python benchmarks/latency_prediction.py --table=runs/bignas224.json --space=bignas \
        --resolution=224 --children=30 --json=prediction.json --csv=prediction.csv \
        --plot=prediction.png

The children are random ones of the space. Each becomes a TFLite file with random weights and is
measured in two ways, in two sessions each: "table", with the clock and statistic of tables (the
thread's CPU time, lower quartile), which says how good the sum of blocks is; and "benchmark", as
`bignas benchmark` does (time, median, a process each, all in turns), which is what a user
sees. Reports for each way the mean relative error of the prediction, its bias, and Kendall's tau
between predicted and measured; tau between the two sessions is the noise ceiling, which no
prediction can be expected to pass. `bignas report --latency_prediction=prediction.csv` draws
them. Quantization and threads are the table's; the machine has to be. Stopped and started again
it goes on: converted files stay in --cache, finished sessions in --json. Let nothing else run
meanwhile.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("table", None, "JSON of `bignas latency-table`.", required=True)
flags.DEFINE_string("space", "bignas", "Name of the space.")
flags.DEFINE_integer("resolution", None, "Of the children, in pixels.", required=True)
flags.DEFINE_integer("children", 30, "Random children.", lower_bound=3)
flags.DEFINE_integer("seed", 1, "Of the children.", lower_bound=0)
flags.DEFINE_string("json", None, "File for the result, or to go on with.", required=True)
flags.DEFINE_string("csv", None, "File for one row per child; none by default.")
flags.DEFINE_string("plot", None, "PNG file for the plot; none by default.")
flags.DEFINE_string("cache", "runs/benchmarks/latency_prediction", "Folder of the files.")
flags.DEFINE_integer("rounds", 10, "Turns of each file in a session.", lower_bound=1)
flags.DEFINE_integer("runs", 10, "Timed invocations per turn.", lower_bound=1)
flags.DEFINE_integer("warmup", 3, "Untimed invocations per turn.", lower_bound=0)

SESSIONS = 2


def children(space: Any, known: Sequence[Any]) -> list[Any]:
    """Random genotypes at the resolution, none of a known network."""
    from bignas_tf.checks import require

    require(FLAGS.resolution in space.resolutions, "resolution", f"one of {space.resolutions}",
            FLAGS.resolution)  # fmt: skip
    rng = np.random.Generator(np.random.Philox(FLAGS.seed))
    found: dict[Any, None] = {}
    for _ in range(100 * FLAGS.children):
        drawn = space.draw(rng, {"resolution": (FLAGS.resolution,)})
        if drawn.spec() not in known:
            found[space.canonical(drawn)] = None
        if len(found) == FLAGS.children:
            return list(found)
    raise ValueError(
        f"`children` must be at most {len(found)}, so many are there. Received: {FLAGS.children}"
    )


def converted(genotype: Any, quantization: str) -> Path:
    """The TFLite file of a child, from the cache or now."""
    from bignas_tf.deploy.block_latency.files import content
    from bignas_tf.files import replacing

    values = "-".join(map(str, genotype.values))
    path = Path(FLAGS.cache) / f"{genotype.space.name}_{values}_{quantization}.tflite"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content(genotype.spec(), quantization, seed=0)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    return path


def session(paths: Sequence[Path], threads: int) -> dict[str, Any]:
    """One measurement of all files in each of the two ways."""
    from bignas_tf.deploy import latency

    times = latency.measure(
        paths, threads=threads, warmup=FLAGS.warmup, runs=FLAGS.runs, rounds=FLAGS.rounds
    )
    return {
        "conditions": latency.host_conditions(),
        "benchmark": [time.median_ms for time in times],
        "spread": [time.spread for time in times],
        "table": as_in_tables(paths, threads),
    }


def as_in_tables(paths: Sequence[Path], threads: int) -> list[float]:
    """Milliseconds of files measured as the whole networks of a table are."""
    from bignas_tf.deploy.block_latency.host import BATCH, lower_quartile, timed_files

    found: list[float] = []
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        with tempfile.TemporaryDirectory() as folder:
            for path in batch:
                (Path(folder) / path.name).symlink_to(path.resolve())
            times = timed_files(Path(folder), threads)
        found += [lower_quartile(times[path.name]) for path in batch]
    return found


def rows(
    table: Any, genotypes: Sequence[Any], predicted: np.ndarray, sessions: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One per child."""
    from bignas_tf.latency_table import blocks_of
    from bignas_tf.search.latency_agreement import WAYS

    return [
        {
            "genotype": genotype.as_dict(),
            "predicted_ms": float(predicted[i]),
            **{
                f"{way}_{number}_ms": each[way][i]
                for way in WAYS
                for number, each in enumerate(sessions, 1)
            },
            "unmeasured_blocks": len(table.missing(blocks_of(genotype.spec()).values())),
        }
        for i, genotype in enumerate(genotypes)
    ]


def text(way: str, head: str, found: dict[str, float]) -> str:
    """A result in words."""
    from bignas_tf.search.latency_agreement import WAYS, in_words

    return f"{head}, measured {WAYS[way]}: {in_words(found)}"


def draw(predicted: np.ndarray, sessions: Sequence[dict[str, Any]], path: Path) -> None:
    """Predicted against the mean of the sessions, in each way, with the diagonal."""
    from matplotlib.figure import Figure

    from bignas_tf.report.drawing import COLOUR, plot_style
    from bignas_tf.search.latency_agreement import WAYS

    with plot_style():
        figure = Figure(figsize=(8.8, 4.4))
        for axes, (way, words) in zip(figure.subplots(1, len(WAYS)), WAYS.items(), strict=True):
            measured = np.mean([each[way] for each in sessions], axis=0)
            ends = [min(predicted.min(), measured.min()), max(predicted.max(), measured.max())]
            axes.plot(ends, ends, color=COLOUR["ink"], linewidth=0.8, label="equal")
            axes.plot(measured, predicted, "o", color=COLOUR["front"], label="a child")
            axes.set_xlabel("measured, ms")
            axes.set_ylabel("predicted from blocks, ms")
            axes.set_title(f"measured {words}", loc="left")
            axes.legend(loc="upper left")
        figure.tight_layout()
        figure.savefig(path, dpi=130, facecolor="white")


def write_rows(found: Sequence[dict[str, Any]], path: Path) -> None:
    """One row per child; the genotype as JSON."""
    from bignas_tf.files import replacing

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "genotype": json.dumps(row["genotype"])} for row in found)


def measured(identity: dict[str, Any], paths: Sequence[Path], threads: int) -> dict[str, Any]:
    """The content of --json, with the sessions that were missing."""
    from bignas_tf.checks import require
    from bignas_tf.files import read_json, write_json

    output = Path(FLAGS.json)
    found = read_json(output) if output.exists() else {**identity, "sessions": []}
    same = {name: found.get(name) for name in identity} == identity
    require(same, "json", "new, or of this table, these children and settings", str(output))
    while len(found["sessions"]) < SESSIONS:
        found["sessions"].append(session(paths, threads))
        write_json(output, found)
    return found


def main(argv: list[str]) -> None:
    """Converts, measures what is missing, compares."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    from tqdm import tqdm

    from bignas_tf.checks import require
    from bignas_tf.files import check_output, write_json
    from bignas_tf.latency_table import LatencyTable
    from bignas_tf.machine import cpu_model
    from bignas_tf.search.latency_agreement import WAYS, agreement
    from bignas_tf.spaces import get_space

    for output in (FLAGS.json, FLAGS.csv, FLAGS.plot):
        if output:
            check_output(Path(output), overwrite=True)
    table = LatencyTable.read(FLAGS.table)
    cpu = table.header["conditions"].get("cpu")
    require(cpu == cpu_model(), "table", f"of this machine, {cpu_model()}", cpu)
    space = get_space(FLAGS.space)
    genotypes = children(space, [network.spec for network in table.networks])
    predicted = np.array([table.profile(genotype.spec()) for genotype in genotypes])
    quantization, threads = table.header["quantization"], table.header["threads"]
    paths = [converted(g, quantization) for g in tqdm(genotypes, desc="converting", unit="file")]
    identity = {
        "table": table.digest,
        "space": space.name,
        "genotypes": [genotype.as_dict() for genotype in genotypes],
        "settings": {name: FLAGS[name].value for name in ("rounds", "runs", "warmup")},
        "ways": list(WAYS),
    }
    found = measured(identity, paths, threads)
    sessions = found["sessions"][:SESSIONS]
    found["sum_of_blocks"] = {"offset_ms": table.offset_ms, "scale": table.scale}
    found["table_error"] = table.leave_one_out_error
    found["result"] = {way: agreement(predicted, [s[way] for s in sessions]) for way in WAYS}
    found["rows"] = rows(table, genotypes, predicted, sessions)
    write_json(FLAGS.json, found)
    head = f"{space.name} at {FLAGS.resolution} px, {len(genotypes)} children, {quantization}, "
    texts = {w: text(w, f"{head}{threads} thread(s)", found["result"][w]) for w in WAYS}
    print("\n".join(texts.values()))
    if FLAGS.csv:
        write_rows(found["rows"], Path(FLAGS.csv))
    if FLAGS.plot:
        draw(predicted, sessions, Path(FLAGS.plot))


if __name__ == "__main__":
    app.run(main)
