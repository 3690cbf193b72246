r"""Latency of the zoo beside published networks of similar size, and a plot against MACs.

    python benchmarks/zoo_latency.py --json=zoo_latency.json --plot=zoo_latency.png
    python benchmarks/zoo_latency.py --json=quick.json --quantizations=float32 --threads=1 \
        --activations=swish

Ours as they are and with their activation replaced by relu6 and by hard_swish. TFLite files with
random weights, one image, LiteRT with XNNPACK; the files take turns on the clock. All models
start from images in [0, 255]; int8 files are calibrated on a few random images, which is enough
for their speed. MACs are counted from the files' own convolutions and matrix products. Two CPU
cores: converting everything takes about 3 min once (converted files are kept), measuring 4.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from bignas_tf.files import check_output, write_json

FLAGS = flags.FLAGS
flags.DEFINE_string("json", None, "File for the result.", required=True)
flags.DEFINE_string("plot", None, "PNG file for the plot; none by default.")
flags.DEFINE_string("cache", "runs/benchmarks/zoo_latency", "Folder of the .tflite files.")
flags.DEFINE_list("quantizations", ["float32", "int8"], "What to convert to.")
flags.DEFINE_list("threads", ["1", "2"], "Numbers of threads.")
flags.DEFINE_list("activations", ["swish", "relu6", "hard_swish"], "Of our models.")
flags.DEFINE_integer("rounds", 10, "Turns of each file.", lower_bound=1)
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
    path = Path(FLAGS.cache) / f"{key}_{quantization}.tflite"
    if not path.exists():
        import keras

        from bignas_tf.deploy.converter import flatbuffer
        from bignas_tf.deploy.schemes import SCHEMES, Quantization
        from bignas_tf.files import replacing

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


def measured(
    known: Sequence[dict[str, Any]], quantization: str, threads: int, load: float
) -> list[dict]:
    """Times all models in one interleaved measurement."""
    from bignas_tf.deploy import latency

    paths = [converted(m["key"], quantization, m["build"]) for m in known]
    times = latency.measure(
        paths, threads=threads, warmup=FLAGS.warmup, runs=FLAGS.runs, rounds=FLAGS.rounds,
        progress=False,
    )  # fmt: skip
    return [
        {
            **{key: model[key] for key in ("model", "activation", "resolution")},
            "quantization": quantization,
            "threads": threads,
            "median_ms": round(time.median_ms, 3),
            "p95_ms": round(time.p95_ms, 3),
            "min_ms": round(time.min_ms, 3),
            "runs": time.runs,
            "spread": time.spread,
            "mmacs": round(macs_of(path) / 1e6, 2),
            "delegate_parts": time.delegate_parts,
            "file_bytes": time.file_bytes,
            **latency.host_conditions(),
            "load_1min": round(load, 2),
        }
        for model, path, time in zip(known, paths, times, strict=True)
    ]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Latency against MACs, a panel per quantization and number of threads."""
    from matplotlib.figure import Figure

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
                axes.annotate(
                    row["model"], (row["mmacs"], row["median_ms"]), (5, -3), fontsize=7,
                    textcoords="offset points",
                )  # fmt: skip
            plural = "" if threads == 1 else "s"
            axes.set_title(f"{quantization}, {threads} thread{plural}", loc="left")
            axes.set_xlabel("MMACs")
            axes.set_ylabel("median, ms")
            axes.set_ylim(bottom=0)
        grid.flat[0].legend(loc="upper left", fontsize=7)
        figure.tight_layout()
        figure.savefig(path, dpi=130, facecolor="white")


def main(argv: list[str]) -> None:
    """Converts what is missing, measures, writes the JSON and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    for output in (FLAGS.json, FLAGS.plot):
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
            write_json(FLAGS.json, rows)
    for row in rows:
        same = (row["quantization"], row["threads"])
        (reference,) = (
            r["median_ms"]
            for r in rows
            if r["model"] == "EfficientNetB0" and (r["quantization"], r["threads"]) == same
        )
        print(
            f"{row['quantization']:8} {row['threads']} thread(s) {row['model']:17} "
            f"{row['activation']:10} {row['mmacs']:8.1f} MMACs {row['median_ms']:8.2f} ms  "
            f"{row['median_ms'] / reference:5.2f} of EfficientNetB0"
        )
    if FLAGS.plot:
        draw(rows, Path(FLAGS.plot))


if __name__ == "__main__":
    app.run(main)
