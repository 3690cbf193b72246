"""Training speed of children on this machine, and what the time goes to.

Forward and backward of children of a supernet in static mode, as they are and with what lies
within blocks computed again in the backward pass, interleaved with the same children as standalone
Keras models: medians, and GFLOP/s of their MACs alone, two operations each, the backward pass
counted as twice the forward. Then every op by itself, forward and backward, summed by kind: its
share of the time, and how near it comes to what this machine's matrix product and memory copy,
measured in the same run, would allow for its arithmetic and its least memory traffic. No optimizer
and no data. TF_NUM_INTRAOP_THREADS sets the threads of an op, TF_NUM_INTEROP_THREADS how many ops
run at a time.

python benchmarks/train_throughput.py --space=attentivenas --genotypes=smallest,biggest \
    --resolution=192 --batch=16 --json=throughput.json
"""

import collections
import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags

_SPACE = flags.DEFINE_string("space", "attentivenas", "Name of the space.")
_GENOTYPES = flags.DEFINE_list("genotypes", ["smallest", "biggest"], "smallest and biggest.")
_RESOLUTION = flags.DEFINE_integer("resolution", 192, "Pixels.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "Images.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed turns of each function.", lower_bound=1)
_OPS = flags.DEFINE_bool("ops", True, "Whether to time every op by itself.")
_SEED = flags.DEFINE_integer("seed", 0, "Of weights and images.")
_JSON = flags.DEFINE_string("json", None, "File to write.", required=True)

PASSES = 3  # the backward pass is two products for each of the forward pass
FLOAT_BYTES = 4
LEAST_SECONDS = 0.05  # of a timed run of one op
MATRIX = 2048  # rows and columns of the matrix product that the machine is measured with
COPIED = 64 * 2**20  # numbers of the copy
ENVIRONMENT = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_CPU_ALLOCATOR_USE_BFC",
    "TF_ENABLE_ONEDNN_OPTS",
)

Step = Callable[[], Any]


def _seconds(step: Step, calls: int = 1) -> float:
    """Time of a call; accelerators return before they are done."""
    import tensorflow as tf

    start = time.perf_counter()
    for _ in range(calls):
        step()
    tf.test.experimental.sync_devices()
    return (time.perf_counter() - start) / calls


def _median_seconds(step: Step, rounds: int) -> float:
    """Median time of a call, each timed run long enough for the clock."""
    _seconds(step)
    calls = max(1, round(LEAST_SECONDS / max(_seconds(step), 1e-6)))
    return statistics.median(_seconds(step, calls) for _ in range(rounds))


def _machine() -> dict[str, float]:
    """What this machine does at best: GFLOP/s of a matrix product, GB/s of a copy."""
    import tensorflow as tf

    a = tf.random.stateless_normal((MATRIX, MATRIX), (0, 0))
    product = _median_seconds(tf.function(lambda: tf.matmul(a, a)), _ROUNDS.value)
    long = tf.random.stateless_normal((COPIED,), (0, 1))
    copy = _median_seconds(tf.function(lambda: long + 1.0), _ROUNDS.value)
    return {
        "gflops": 2 * MATRIX**3 / product / 1e9,
        "gbytes_per_s": 2 * FLOAT_BYTES * COPIED / copy / 1e9,
    }


def _whole(name: str, genotype: Any, supernet: Any, images: Any) -> list[dict[str, Any]]:
    """Rows of a child in the supernet, with and without recomputation, and standalone."""
    import tensorflow as tf

    from bignas_tf import cost
    from bignas_tf.child import build_child

    child = build_child(genotype.spec(), seed=_SEED.value)
    weights = [v.value for v in supernet.variables_by_path().values()]

    def step(forward: Callable[[Any], Any], variables: list[Any]) -> Step:
        @tf.function(autograph=False)
        def run() -> Any:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(forward(images)))
            return [g for g in tape.gradient(loss, variables) if g is not None]

        return run

    steps = {
        "supernet": step(lambda x: supernet.run(x, genotype), weights),
        "recomputed": step(lambda x: supernet.run(x, genotype, remat=True), weights),
        "standalone": step(
            lambda x: child(x, training=True), [v.value for v in child.trainable_variables]
        ),
    }
    times: dict[str, list[float]] = {key: [] for key in steps}
    for run in steps.values():
        _seconds(run)
    for _ in range(_ROUNDS.value):
        for key, run in steps.items():
            times[key].append(_seconds(run))
    macs = cost.count(genotype.spec()).macs
    rows = []
    for key, values in times.items():
        seconds = statistics.median(values)
        rows.append(
            {
                "genotype": name,
                "as": key,
                "milliseconds": seconds * 1e3,
                "range_milliseconds": [min(values) * 1e3, max(values) * 1e3],
                "gflops": 2 * PASSES * macs * _BATCH.value / seconds / 1e9,
            }
        )
    return rows


def _kind(op: Any) -> str:
    from bignas_tf.ops import Activation, Conv, DepthwiseConv

    name = type(op).__name__
    if isinstance(op, (Conv, DepthwiseConv)):
        return f"{name} {op.kernel_size}x{op.kernel_size}"
    return f"{name} {op.function}" if isinstance(op, Activation) else name


def _op_step(op: Any, inputs: list[Any]) -> Step:
    """Forward and backward of one op, on random weights."""
    import keras
    import tensorflow as tf

    from bignas_tf.ops import BatchNorm, Conv, Dense, DepthwiseConv, weight_shapes
    from bignas_tf.primitives import apply_weightless, conv, depthwise_conv, normalize_by_batch

    weights = {
        name: tf.random.stateless_normal(shape, (2, number)) * 0.1
        for number, (name, shape) in enumerate(weight_shapes(op).items())
    }

    def forward() -> Any:
        x = inputs[0]
        if isinstance(op, BatchNorm):
            return normalize_by_batch(x, weights["gamma"], weights["beta"], op.epsilon)
        if isinstance(op, DepthwiseConv):
            return depthwise_conv(x, weights["kernel"], op.strides, op.dilation)
        if isinstance(op, Conv):
            y = conv(x, weights["kernel"], op.strides, op.dilation)
            return y + weights["bias"] if op.use_bias else y
        if isinstance(op, Dense):
            y = keras.ops.matmul(x, weights["kernel"])
            return y + weights["bias"] if op.use_bias else y
        return apply_weightless(op, *inputs)

    upstream = tf.random.stateless_normal(forward().shape, (3, 0))
    sources = [*inputs, *weights.values()]

    @tf.function(autograph=False)
    def run() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(sources)
            y = forward()
        return y, tape.gradient(y, sources, output_gradients=upstream)

    return run


def _by_kind(genotype: Any, machine: dict[str, float]) -> list[dict[str, Any]]:
    """Every op by itself, alike ones once, summed by kind."""
    import numpy as np
    import tensorflow as tf
    import tqdm

    from bignas_tf import cost
    from bignas_tf.ops import INPUT, Add, shapes

    spec = genotype.spec()
    ops = spec.ops()
    known = {INPUT: spec.input_shape, **shapes(ops, spec.input_shape)}
    costs = {each.name: each for each in cost.profile(spec).ops}
    totals: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    seen: dict[Any, float] = {}
    for op in tqdm.tqdm(ops, desc="ops"):
        shaped = tuple(known[name] for name in op.inputs)
        alike = dataclasses.replace(op, name="", block="", inputs=("",) * len(op.inputs)), shaped
        if alike not in seen:
            inputs = [
                tf.random.stateless_normal((_BATCH.value, *shape), (1, number))
                for number, shape in enumerate(shaped)
            ]
            seen[alike] = _median_seconds(_op_step(op, inputs), _ROUNDS.value)
        read = sum(int(np.prod(shape)) for shape in shaped)
        written = int(np.prod(known[op.name]))
        flops = 2 * PASSES * costs[op.name].macs * _BATCH.value
        # Forward: inputs and output once; backward: both once more, and the inputs' gradients.
        # Those of a sum are its own.
        values = read + written if isinstance(op, Add) else 3 * read + 2 * written
        traffic = FLOAT_BYTES * _BATCH.value * values
        least = max(flops / machine["gflops"], traffic / machine["gbytes_per_s"]) / 1e9
        totals[_kind(op)].update(
            {
                "ops": 1,
                "seconds": seen[alike],
                "least_seconds": least,
                "flops": flops,
                "bytes": traffic,
            }
        )
    whole = sum(total["seconds"] for total in totals.values())
    return [
        {
            "kind": kind,
            "ops": total["ops"],
            "milliseconds": total["seconds"] * 1e3,
            "share": total["seconds"] / whole,
            "gflops": total["flops"] / total["seconds"] / 1e9,
            "gbytes_per_s": total["bytes"] / total["seconds"] / 1e9,
            "of_the_roofline": total["least_seconds"] / total["seconds"],
        }
        for kind, total in sorted(totals.items(), key=lambda pair: -pair[1]["seconds"])
    ]


def _print_kinds(kinds) -> None:
    alone = sum(row["milliseconds"] for row in kinds)
    print(f"  every op by itself, in all {alone:11.1f} ms")
    for row in kinds:
        print(
            f"  {row['kind']:22} {row['ops']:4} {row['milliseconds']:8.1f} ms "
            f"{row['share']:6.1%} {row['gflops']:7.1f} GFLOP/s "
            f"{row['gbytes_per_s']:6.1f} GB/s {row['of_the_roofline']:6.1%}"
        )


def main(argv: list[str]) -> None:
    """Measures, prints tables and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    import keras
    import numpy as np
    import tensorflow as tf

    from bignas_tf.checks import require_choice
    from bignas_tf.files import check_output, write_json
    from bignas_tf.machine import device, usable_cores
    from bignas_tf.spaces import get_space
    from bignas_tf.supernet import Supernet

    check_output(pathlib.Path(_JSON.value), overwrite=True)
    for name in _GENOTYPES.value:
        require_choice("genotypes", name, ("smallest", "biggest"))
    keras.utils.set_random_seed(_SEED.value)
    space = dataclasses.replace(
        get_space(_SPACE.value),
        resolution_choices=(_RESOLUTION.value,),
        training_resolutions=(),
        dropout=0.0,
    )
    shape = (_BATCH.value, _RESOLUTION.value, _RESOLUTION.value, space.input_channels)
    rng = np.random.Generator(np.random.Philox(_SEED.value))
    images = tf.constant(rng.uniform(-1, 1, shape).astype(np.float32))
    supernet = Supernet(space, seed=_SEED.value)
    machine = _machine()
    print(
        f"matrix product {machine['gflops']:.0f} GFLOP/s, copy {machine['gbytes_per_s']:.1f} GB/s"
    )
    rows, kinds = [], {}
    for name in _GENOTYPES.value:
        genotype = getattr(space, name)()
        own = _whole(name, genotype, supernet, images)
        rows += own
        for row in own:
            print(
                f"{name:9} {row['as']:10} {row['milliseconds']:9.1f} ms "
                f"{row['gflops']:6.1f} GFLOP/s"
            )
        if _OPS.value:
            kinds[name] = _by_kind(genotype, machine)
            _print_kinds(kinds[name])
    conditions = {
        "device": device(),
        "cores": usable_cores(),
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "versions": {"tensorflow": tf.__version__, "keras": keras.version()},
        "space": _SPACE.value,
        "resolution": _RESOLUTION.value,
        "batch": _BATCH.value,
        "rounds": _ROUNDS.value,
    }
    write_json(_JSON.value, {**conditions, "machine": machine, "children": rows, "by_kind": kinds})


if __name__ == "__main__":
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    app.run(main)
