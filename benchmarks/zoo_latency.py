r"""Latency of the zoo beside published networks of similar size, and a plot against MACs.

    python benchmarks/zoo_latency.py --csv=zoo_latency.csv --plot=zoo_latency.png
    python benchmarks/zoo_latency.py --csv=quick.csv --quantizations=float32 --threads=1 \
        --activations=swish --seconds=30

Ours as they are and with their activation replaced by relu6 and by hard_swish. TFLite files with
random weights, one image, LiteRT with XNNPACK; the files take turns on the clock until the 95 %
interval of every median is within --spread of it or --seconds are over. `ratio` is the median
over the rounds of a file's time to its `reference`'s in the same round, `ratio_low` and
`ratio_high` its 95 % interval: a machine that slows down slows both. All models start from images
in [0, 255]; int8 files are calibrated on a few random images, which is enough for their speed.
MACs are counted from the files' own convolutions and matrix products. Two CPU cores: converting
everything takes about 3 min once (converted files are kept), measuring up to 12.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from bignas_tf.deploy.latency.spread import LEAST_ROUNDS
from bignas_tf.files import check_output, replacing

FLAGS = flags.FLAGS
flags.DEFINE_string("csv", None, "File for the rows.", required=True)
flags.DEFINE_string("plot", None, "PNG file for the plot; none by default.")
flags.DEFINE_string("cache", "runs/benchmarks/zoo_latency", "Folder of the .tflite files.")
flags.DEFINE_list("quantizations", ["float32", "int8"], "What to convert to.")
flags.DEFINE_list("threads", ["1", "2"], "Numbers of threads.")
flags.DEFINE_list("activations", ["swish", "relu6", "hard_swish"], "Of our models.")
flags.DEFINE_float("spread", 0.02, "Of each median, relative: when to stop.")
flags.DEFINE_float("seconds", 180.0, "Per quantization and threads, to get there.", lower_bound=0)
flags.DEFINE_integer("runs", 15, "Timed invocations per turn.", lower_bound=1)
flags.DEFINE_integer("warmup", 3, "Untimed invocations per turn.", lower_bound=0)

OURS = {
    "bignasmodel_s": "BigNASModelS",
    "bignasmodel_m": "BigNASModelM",
    "bignasmodel_l": "BigNASModelL",
    "bignasmodel_xl": "BigNASModelXL",
}
PUBLISHED = {  # pixels
    "MobileNetV2": 224,
    "MobileNetV3Large": 224,
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetV2B0": 224,
}
REFERENCE = {"BigNASModelS": "MobileNetV3Large"}  # of the others EfficientNetB0
AIMS = {  # of float32 on one thread: at most so much of the reference
    ("BigNASModelM", "swish"): 0.90,
    ("BigNASModelS", "swish"): 1.35,
    ("BigNASModelS", "relu6"): 1.15,
}
QUIET = 0.5  # load average per core that times are fit to be compared at
CALIBRATED = 4  # images


def with_activation(spec: Any, activation: str) -> Any:
    """The network with another activation everywhere but in the gates."""
    blocks = []
    for block in spec.blocks:
        fields = {"activation": activation} if hasattr(block, "activation") else {}
        if getattr(block, "se", None):
            fields["se"] = dataclasses.replace(block.se, activation=activation)
        blocks.append(dataclasses.replace(block, **fields))
    return dataclasses.replace(spec, blocks=tuple(blocks))


def build_ours(spec: Any) -> Any:
    """A network whose residual branches are not zero, as after training."""
    import keras

    from bignas_tf.child import build_child

    model = build_child(spec, include_preprocessing=True, classifier_activation="softmax")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.ones(layer.gamma.shape))
    return model


def build_published(name: str) -> Any:
    """A model of keras.applications with random weights."""
    import keras

    # MobileNetV3 has no static shape of its own.
    shape = (PUBLISHED[name], PUBLISHED[name], 3)
    return getattr(keras.applications, name)(weights=None, input_shape=shape)


def converted(key: str, quantization: str, build: Callable[[], Any]) -> Path:
    """The TFLite file of a model, from the cache or now."""
    versions = (importlib.metadata.version(name) for name in ("tensorflow", "keras"))
    path = Path(FLAGS.cache) / "_".join(versions) / f"{key}_{quantization}.tflite"
    if not path.exists():
        import keras

        from bignas_tf.deploy.conversion.converter import flatbuffer
        from bignas_tf.deploy.schemes import SCHEMES, Quantization

        print(f"converting {path.stem}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(0)
        model = build()
        shape = (CALIBRATED, *model.inputs[0].shape[1:])
        images = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        scheme = SCHEMES[Quantization(quantization)]
        content = flatbuffer(model, scheme, images if scheme.calibrated else None)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        keras.backend.clear_session()
    return path


def macs_of(path: Path) -> int:
    """Multiply-accumulates of a file's convolutions and matrix products, for one image."""
    from bignas_tf.deploy.interpreter import load_interpreter

    interpreter = load_interpreter(path, delegate="none")
    shapes = {t["index"]: t["shape"] for t in interpreter.get_tensor_details()}
    total = 0
    for op in interpreter._get_ops_details():
        kernel, output = (
            (shapes[op["inputs"][1]], shapes[op["outputs"][0]])
            if len(op["inputs"]) > 1
            else ((), ())
        )
        if op["op_name"] == "CONV_2D":  # (outputs, height, width, inputs)
            total += int(np.prod(output) * np.prod(kernel[1:]))
        elif op["op_name"] == "DEPTHWISE_CONV_2D":  # (1, height, width, channels)
            total += int(np.prod(output) * np.prod(kernel[1:3]))
        elif op["op_name"] == "FULLY_CONNECTED":  # (outputs, inputs)
            total += int(np.prod(output) * kernel[-1])
    return total


def models() -> list[dict[str, Any]]:
    """Every model: what it is, and how to build it."""
    from bignas_tf import zoo

    found = []
    for name, title in OURS.items():
        for activation in FLAGS.activations:
            spec = zoo.get_spec(name)
            if activation != "swish":
                spec = with_activation(spec, activation)
            # A preset that changes is another file.
            digest = hashlib.sha256(json.dumps(spec.to_json()).encode()).hexdigest()[:12]
            found.append(
                {
                    "model": title,
                    "activation": activation,
                    "resolution": spec.input_shape[0],
                    "key": f"{name}_{digest}",
                    "build": lambda spec=spec: build_ours(spec),
                }
            )
    for name, resolution in PUBLISHED.items():
        found.append(
            {
                "model": name,
                "activation": "",
                "resolution": resolution,
                "key": f"{name}_{resolution}",
                "build": lambda name=name: build_published(name),
            }
        )
    return found


def load_average() -> float:
    """Of the last minute, with a warning where it is too high to time anything."""
    load = os.getloadavg()[0]
    if load > QUIET * (os.cpu_count() or 1):
        print(
            f"warning: the load average is {load:.2f} on {os.cpu_count()} cores; times will be "
            "too long and unsteady. Converted files are kept: stop what else runs, wait a "
            "minute, and run this again.",
            file=sys.stderr,
        )
    return load


def ratio(times: Sequence[float], reference: Sequence[float]) -> dict[str, float | None]:
    """Of the times of rounds to those of another file in the same rounds."""
    from bignas_tf.deploy.latency.spread import median_interval

    each = np.divide(times, reference)
    low, high = median_interval(each.tolist()) or (None, None)
    return {"ratio": float(np.median(each)), "ratio_low": low, "ratio_high": high}


def measured(
    known: Sequence[dict[str, Any]], quantization: str, threads: int, load: float
) -> list[dict[str, Any]]:
    """Times all models in one interleaved measurement."""
    from bignas_tf.deploy import latency

    paths = [converted(m["key"], quantization, m["build"]) for m in known]
    times = latency.measure(
        paths, threads=threads, warmup=FLAGS.warmup, runs=FLAGS.runs, rounds=LEAST_ROUNDS,
        spread=FLAGS.spread, seconds=FLAGS.seconds,
    )  # fmt: skip
    rounds = {m["model"]: time.round_medians_ms for m, time in zip(known, times, strict=True)}
    rows = []
    for model, path, time in zip(known, paths, times, strict=True):
        reference = REFERENCE.get(model["model"], "EfficientNetB0")
        row = {
            **{key: model[key] for key in ("model", "activation", "resolution")},
            "quantization": quantization,
            "threads": threads,
            "median_ms": time.median_ms,
            "p95_ms": time.p95_ms,
            "min_ms": time.min_ms,
            "runs": time.runs,
            "spread": time.spread,
            "steady": time.steady,
            "reference": reference,
            **ratio(time.round_medians_ms, rounds[reference]),
            "mmacs": macs_of(path) / 1e6,
            "delegate_parts": time.delegate_parts,
            "file_bytes": time.file_bytes,
        }
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        quiet = load <= QUIET * (os.cpu_count() or 1)
        conditions = latency.host_conditions()
        rows.append(rounded | conditions | {"load_1min": round(load, 2), "quiet": quiet})
    return rows


def write(rows: Sequence[dict[str, Any]]) -> None:
    """Replaces the CSV."""
    path = Path(FLAGS.csv)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def line(row: dict[str, Any]) -> str:
    """A row for people, with what became of its aim."""
    aim = None
    if (row["quantization"], row["threads"]) == ("float32", 1):
        aim = AIMS.get((row["model"], row["activation"]))
    verdict = ""
    if aim:
        low, high = row["ratio_low"], row["ratio_high"]
        said = "met" if high <= aim else "missed" if low > aim else "not decided"
        verdict = f"; aim {aim:.2f}: {said}"
    return (
        f"{row['quantization']:8} {row['threads']} thread(s) {row['model']:17} "
        f"{row['activation']:10} {row['mmacs']:8.1f} MMACs {row['median_ms']:8.2f} ms "
        f"+- {100 * row['spread']:4.1f} %  {row['ratio']:5.3f} "
        f"({row['ratio_low']:.3f} to {row['ratio_high']:.3f}) of {row['reference']}{verdict}"
    )


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Latency against MACs, a panel per quantization and number of threads."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    from bignas_tf.report.drawing import COLOUR, plot_style

    panels = list(dict.fromkeys((row["quantization"], row["threads"]) for row in rows))
    styles = {"swish": ("o", "front"), "relu6": ("s", "third"), "hard_swish": ("^", "test")}
    with plot_style():
        figure = Figure(figsize=(5.2 * min(2, len(panels)), 4.0 * ((len(panels) + 1) // 2)))
        grid = figure.subplots((len(panels) + 1) // 2, min(2, len(panels)), squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, (quantization, threads) in zip(grid.flat, panels, strict=False):
            some = [r for r in rows if (r["quantization"], r["threads"]) == (quantization, threads)]
            for activation, (marker, colour) in styles.items():
                ours = [row for row in some if row["activation"] == activation]
                axes.plot(
                    [r["mmacs"] for r in ours], [r["median_ms"] for r in ours], marker=marker,
                    color=COLOUR[colour], label=f"BigNASModel S, M, L, XL, {activation}",
                )  # fmt: skip
            others = [row for row in some if not row["activation"]]
            axes.plot(
                [r["mmacs"] for r in others], [r["median_ms"] for r in others], "x",
                color=COLOUR["ink"], label="published networks",
            )  # fmt: skip
            for row in others:
                # Off our lines, and the neighbours MobileNet off each other.
                above = row["model"].startswith("EfficientNetB")
                place = {"MobileNetV3Large": (-16, -14)}.get(row["model"], (6, -4))
                axes.annotate(
                    row["model"], (row["mmacs"], row["median_ms"]),
                    (-6, 5) if above else place, ha="right" if above else "left",
                    fontsize=7, textcoords="offset points",
                )  # fmt: skip
            plural = "" if threads == 1 else "s"
            axes.set_title(f"{quantization}, {threads} thread{plural}", loc="left")
            axes.set_xlabel("MMACs")
            axes.set_ylabel("median, ms")
            fastest = min(row["median_ms"] for row in some)
            axes.set(yscale="log", xlim=(150, 1150), ylim=(0.7 * fastest, None))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        grid.flat[0].legend(loc="lower right", fontsize=7)
        figure.tight_layout()
        figure.savefig(path, dpi=130, facecolor="white")


def main(argv: list[str]) -> None:
    """Converts what is missing, measures, writes the CSV and prints a line for each row."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    for output in (FLAGS.csv, FLAGS.plot):
        if output:
            check_output(Path(output), overwrite=True)
    known = models()
    threads = [int(number) for number in FLAGS.threads]
    for quantization in FLAGS.quantizations:  # all of them before the clock starts
        for model in known:
            converted(model["key"], quantization, model["build"])
    rows = []
    load = load_average()  # before the measurement, which is load too
    for quantization in FLAGS.quantizations:
        for number in threads:
            rows += measured(known, quantization, number, load)
            write(rows)
    print("\n".join(map(line, rows)))
    if FLAGS.plot:
        draw(rows, Path(FLAGS.plot))


if __name__ == "__main__":
    app.run(main)
