r"""Single-thread latency of the zoo beside published networks of similar size.

    python benchmarks/zoo_latency.py --json=zoo_latency.json

float32 TFLite files with random weights, one image, LiteRT with XNNPACK; the files take turns
on the clock. Models of keras.applications and ours both start from images in [0, 255].
Two CPU cores: 3 min, most of it TFLite conversion; converted files are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("json", None, "File for the result.", required=True)
flags.DEFINE_string("cache", "runs/benchmarks/zoo_latency", "Folder of the .tflite files.")
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
    "MobileNetV3Large": 224,
    "EfficientNetB0": 224,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
}
QUANTIZATION = "float32"
THREADS = 1
QUIET = 0.5  # load average per core that times are fit to be compared at


def build_ours(name: str) -> Any:
    """A model of the zoo whose residual branches are not zero, as after training."""
    import keras

    from bignas_tf import zoo

    model = getattr(zoo, OURS[name])(name=name)
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


def converted(key: str, build: Callable[[], Any]) -> Path:
    """The TFLite file of a model, from the cache or now."""
    path = Path(FLAGS.cache) / f"{key}_{QUANTIZATION}.tflite"
    if not path.exists():
        import keras

        from bignas_tf.deploy.converter import flatbuffer
        from bignas_tf.deploy.schemes import SCHEMES, Quantization

        print(f"converting {key}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.set_random_seed(0)
        path.write_bytes(flatbuffer(build(), SCHEMES[Quantization(QUANTIZATION)]))
        keras.backend.clear_session()
    return path


def models() -> dict[str, tuple[Path, dict[str, Any]]]:
    """File and known figures of every model, by name."""
    from bignas_tf import zoo
    from bignas_tf.cost import count

    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for name in OURS:
        spec = zoo.get_spec(name)
        cost = count(spec)
        # A preset that changes is another file.
        digest = hashlib.sha256(json.dumps(spec.to_json()).encode()).hexdigest()[:12]
        path = converted(f"{name}_{digest}", lambda name=name: build_ours(name))
        found[OURS[name]] = (
            path,
            {
                "resolution": spec.input_shape[0],
                "mmacs": round(cost.macs / 1e6, 2),
                "params_m": round(cost.params / 1e6, 3),
            },
        )
    for name, resolution in PUBLISHED.items():
        path = converted(f"{name}_{resolution}", lambda name=name: build_published(name))
        found[name] = path, {"resolution": resolution}
    return found


def main(_: list[str]) -> None:
    """Converts what is missing, measures, writes the JSON and prints a table."""
    from bignas_tf.deploy import latency

    found = models()
    load = os.getloadavg()[0]  # before the measurement, which is load too
    if load > QUIET * (os.cpu_count() or 1):
        print(
            f"warning: the load average is {load:.2f} on {os.cpu_count()} cores; times will be "
            "too long and unsteady. Converted files are kept: stop what else runs, wait a "
            "minute, and run this again.",
            file=sys.stderr,
        )
    times = latency.measure(
        [path for path, _ in found.values()],
        threads=THREADS, warmup=FLAGS.warmup, runs=FLAGS.runs, rounds=FLAGS.rounds, progress=False,
    )  # fmt: skip
    conditions = latency.host_conditions()
    rows = [
        {
            "model": name,
            "quantization": QUANTIZATION,
            "threads": THREADS,
            "median_ms": round(time.median_ms, 3),
            "p95_ms": round(time.p95_ms, 3),
            "min_ms": round(time.min_ms, 3),
            "runs": time.runs,
            **figures,
            **conditions,
            "load_1min": round(load, 2),
        }
        for (name, (_, figures)), time in zip(found.items(), times, strict=True)
    ]
    Path(FLAGS.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    reference = next(row["median_ms"] for row in rows if row["model"] == "EfficientNetB0")
    for row in rows:
        ratio = row["median_ms"] / reference
        print(f"{row['model']:18} {row['median_ms']:8.2f} ms  {ratio:5.2f} of EfficientNetB0")


if __name__ == "__main__":
    app.run(main)
