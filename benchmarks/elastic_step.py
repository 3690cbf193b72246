"""Forward and backward time of elastic children against the same children standing alone.

Smallest, biggest and two random children of a space at one resolution: in each mode of
the supernet and as standalone Keras models, interleaved in one run, medians; then the
sandwich step of all four against the sum of their standalone steps. Standalone models
update moving statistics, the supernet has none; dropout is off on both sides. Peak memory is that
of TensorFlow's BFC allocator.

python benchmarks/elastic_step.py --space=bignas --resolution=96 --batch=16 --json=step.json
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags

_SPACE = flags.DEFINE_string("space", "bignas", "Name of the space.")
_RESOLUTION = flags.DEFINE_integer("resolution", 96, "Pixels.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 16, "Images.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed turns of each function.", lower_bound=1)
_MODES = flags.DEFINE_list("modes", ["static", "sliced", "masked"], "Modes to measure.")
_SEED = flags.DEFINE_integer("seed", 0, "Of weights, random children and images.")
_JSON = flags.DEFINE_string("json", None, "File to write.", required=True)

Step = Callable[[], Any]


def _gradient_step(forward: Callable[..., Any], variables: list[Any]) -> Any:
    """A compiled forward and backward pass of a mean squared logit."""
    import tensorflow as tf

    values = [variable.value for variable in variables]

    @tf.function(autograph=False)
    def step(images: Any, *arguments: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(forward(images, *arguments)))
        return [g for g in tape.gradient(loss, values) if g is not None]

    return step


def _children(space: Any) -> dict[str, Any]:
    randoms = space.sample(2, _SEED.value)
    return {
        "smallest": space.smallest(),
        "biggest": space.biggest(),
        "random1": randoms[0],
        "random2": randoms[1],
    }


def _steps(supernet: Any, children: dict[str, Any], images: Any) -> dict[tuple[str, str], Step]:
    """All functions to time, by genotype and mode."""
    import tensorflow as tf

    from bignas_tf.child import build_child
    from bignas_tf.spaces.sizes import size_table

    variables = list(supernet.variables_by_path().values())
    shared = {
        mode: _gradient_step(
            lambda x, table, mode=mode: supernet.run_table(x, table, mode), variables
        )
        for mode in _MODES.value
        if mode != "static"
    }
    steps: dict[tuple[str, str], Step] = {}
    for name, genotype in children.items():
        child = build_child(genotype.spec(), seed=_SEED.value)
        alone = _gradient_step(
            lambda x, child=child: child(x, training=True), child.trainable_variables
        )
        steps[name, "standalone"] = lambda alone=alone: alone(images)
        if "static" in _MODES.value:
            static = _gradient_step(
                lambda x, genotype=genotype: supernet.run(x, genotype), variables
            )
            steps[name, "static"] = lambda static=static: static(images)
        table = tf.constant(size_table(genotype))
        for mode, step in shared.items():
            steps[name, mode] = lambda step=step, table=table: step(images, table)
    steps["sandwich", "sandwich"] = _sandwich(supernet, children, images)
    return steps


def _sandwich(supernet: Any, children: dict[str, Any], images: Any) -> Step:
    """All gradients of one sandwich step, as training computes them, without the update."""
    import keras
    import numpy as np
    import tensorflow as tf

    from bignas_tf.spaces.sizes import size_table
    from bignas_tf.training.rule import SandwichRule, Term
    from bignas_tf.training.tensorflow_loop import TensorflowLoop

    loop = TensorflowLoop(
        supernet, SandwichRule(supernet.space), keras.optimizers.SGD(0.1), batch_size=_BATCH.value
    )
    recurring = ("biggest", "smallest")
    terms = [Term(name, name, children[name], recurs=True) for name in recurring]
    terms += [Term(name, "random", children[name]) for name in ("random1", "random2")]
    stored = tf.constant((np.asarray(images) * 127.5 + 127.5).clip(0, 255).astype(np.uint8))
    labels = tf.zeros(_BATCH.value, tf.int32)
    varying = [term.genotype for term in terms if not term.recurs]
    tables = tuple(tf.constant(size_table(genotype)) for genotype in varying)
    resolutions = tuple(tf.constant(genotype["resolution"]) for genotype in varying)
    arguments = (terms, (stored, labels), (tables, resolutions), 0)
    step = tf.function(lambda: loop.gradients(*arguments), autograph=False)
    return lambda: step()


def _peak_mb(step: Step) -> float:
    """Peak of the allocator during one call, beyond what was held before it."""
    import tensorflow as tf

    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    tf.config.experimental.reset_memory_stats("CPU:0")
    result = step()
    del result
    return (tf.config.experimental.get_memory_info("CPU:0")["peak"] - before) / 1e6


def _measure(steps: dict[tuple[str, str], Step]) -> list[dict[str, Any]]:
    import tqdm

    for step in tqdm.tqdm(steps.values(), desc="tracing"):
        step()
    peaks = {key: _peak_mb(step) for key, step in steps.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for _ in tqdm.tqdm(range(_ROUNDS.value), desc="timing"):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            times[key].append((time.perf_counter() - start) * 1e3)
    medians = {key: statistics.median(values) for key, values in times.items()}
    alone = {name: ms for (name, mode), ms in medians.items() if mode == "standalone"}
    alone["sandwich"] = sum(alone.values())
    return [
        {
            "genotype": name,
            "mode": mode,
            "milliseconds": ms,
            "ratio_to_standalone": ms / alone[name],
            "peak_mb": peaks[name, mode],
        }
        for (name, mode), ms in medians.items()
    ]


def main(argv: list[str]) -> None:
    """Measures, prints a table and writes the JSON."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    import keras
    import numpy as np
    import tensorflow as tf

    from bignas_tf.files import check_output, write_json
    from bignas_tf.spaces import get_space
    from bignas_tf.supernet import Supernet

    check_output(pathlib.Path(_JSON.value), overwrite=True)
    keras.utils.set_random_seed(_SEED.value)
    space = dataclasses.replace(
        get_space(_SPACE.value),
        resolution_choices=(_RESOLUTION.value,),
        training_resolutions=(),
        dropout=0.0,  # on neither side
    )
    shape = (_BATCH.value, _RESOLUTION.value, _RESOLUTION.value, space.input_channels)
    rng = np.random.Generator(np.random.Philox(_SEED.value))
    images = tf.constant(rng.uniform(-1, 1, shape).astype(np.float32))
    supernet = Supernet(space, seed=_SEED.value)
    rows = _measure(_steps(supernet, _children(space), images))
    for row in rows:
        print(
            f"{row['genotype']:9} {row['mode']:11} {row['milliseconds']:9.1f} ms "
            f"{row['ratio_to_standalone']:6.3f} {row['peak_mb']:8.1f} MB"
        )
    biggest = next(r for r in rows if (r["genotype"], r["mode"]) == ("biggest", "standalone"))
    print(f"sandwich peak against biggest alone: {rows[-1]['peak_mb'] / biggest['peak_mb']:.3f}")
    write_json(_JSON.value, rows)


if __name__ == "__main__":
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    app.run(main)
