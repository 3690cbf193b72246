"""Speed, MAC utilization and memory of the compiled sandwich step under JAX.

Images per second of whole training steps (augmentation, four children, update) on images
that live on the device. Utilization is the MACs that the step computes, three times those
of its forward passes (what rematerialization adds is not counted), over what a large matrix
product of the same precision reaches in the same run; masked children compute the biggest
child's MACs at their resolution, and "useful" counts their own only. Memory is what the
compiled programs reserve, for the whole step and for a step of the biggest child alone.

python benchmarks/jax_step.py --space=cifar --batch=128 --json=jax_step.json
"""

import os
import pathlib
import time
from typing import Any

from absl import app, flags

_SPACE = flags.DEFINE_string("space", "cifar", "Name of the space.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "Pixels; the space's largest by default.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images.", lower_bound=1)
_PRECISIONS = flags.DEFINE_list("precisions", ["float32", "bfloat16"], "To measure.")
_STEPS_PER_CALL = flags.DEFINE_integer("steps_per_call", None, "Default: the trainer's.")
_CALLS = flags.DEFINE_integer("calls", 5, "Timed calls, after one that warms up.", lower_bound=1)
_REMAT = flags.DEFINE_bool("remat", False, "Compute activations again in the backward pass.")
_MATMUL = flags.DEFINE_integer("matmul", None, "Side of the product; default 8192, CPU 2048.")
_SEED = flags.DEFINE_integer("seed", 0, "Of weights, random children and images.")
_JSON = flags.DEFINE_string("json", None, "File to write.", required=True)


def _matmul_macs_per_second(precision: str) -> tuple[int, float]:
    """The best of five products of two square matrices on one device, times all devices."""
    import jax
    import jax.numpy as jnp

    side = _MATMUL.value or (2048 if jax.devices()[0].platform == "cpu" else 8192)
    keys = jax.random.split(jax.random.key(_SEED.value))
    a, b = (jax.random.normal(key, (side, side), jnp.dtype(precision)) for key in keys)
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        product(a, b).block_until_ready()
        times.append(time.perf_counter() - start)
    return side, len(jax.local_devices()) * side**3 / min(times)


def _loop(space: Any, precision: str, rule: Any) -> Any:
    from bignas_tf.supernet import Supernet
    from bignas_tf.training.jax_loop import JaxLoop
    from bignas_tf.training.optimizers import build_optimizer
    from bignas_tf.training.recipe import POLICIES

    return JaxLoop(
        Supernet(space, seed=_SEED.value, dtype=POLICIES[precision]),
        rule,
        build_optimizer({"kind": "sgd"}, 0.01),
        batch_size=_BATCH.value,
        weight_decay=1e-4,
        seed=_SEED.value,
        steps_per_call=_STEPS_PER_CALL.value,
        remat=_REMAT.value,
    )


def _image_size(space: Any) -> int:
    return _IMAGE_SIZE.value or max(space.resolutions)


def _steps_per_call() -> int:
    from bignas_tf.training.jax_loop import steps_per_call_by_default

    return _STEPS_PER_CALL.value or steps_per_call_by_default()


def _plan(space: Any) -> Any:
    """Batches of random images, enough for every timed call."""
    import numpy as np

    from bignas_tf.data import AugmentationPolicy, Split
    from bignas_tf.data.batches import BatchPlan

    steps = _steps_per_call() * (_CALLS.value + 1)
    size = _image_size(space)
    rng = np.random.default_rng(_SEED.value)
    shape = (_BATCH.value * steps, size, size, space.input_channels)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    split = Split(rng.integers(0, space.classes, len(images)).astype(np.int32), images)
    policy = AugmentationPolicy(flip=True, shift=min(4, size - 1))
    return BatchPlan(split, batch_size=_BATCH.value, policy=policy, seed=_SEED.value)


def _macs(space: Any, rule: Any, steps: int) -> tuple[float, float]:
    """MACs an image of a mean training step: computed, and of the children themselves."""
    from bignas_tf import cost

    computed = useful = 0.0
    for step in range(steps):
        for term in rule.plan(_SEED.value, step):
            own = cost.count(term.genotype.spec()).macs
            at = space.biggest().replace(resolution=term.genotype["resolution"])
            masked = cost.count(at.spec()).macs
            computed += 3 * (own if term.recurs else masked)
            useful += 3 * own
    return computed / steps, useful / steps


def _memory_mb(loop: Any, chunk: Any) -> float:
    """What the program reserves beyond its arguments."""
    return loop.compile(chunk).memory_analysis().temp_size_in_bytes / 1e6


def _measure(space: Any, precision: str) -> dict[str, Any]:
    import tqdm

    from bignas_tf.training.rule import SandwichRule

    class BiggestAlone(SandwichRule):
        def plan(self, seed: int, step: int) -> list[Any]:
            return super().plan(seed, step)[:1]

    plan, rule = _plan(space), SandwichRule(space, label_smoothing=0.1)
    loop = _loop(space, precision, rule)
    chunks = list(loop.chunks(plan, 0, plan.steps_per_epoch))
    start = time.perf_counter()
    loop.train(chunks[0], 0)
    row: dict[str, Any] = {"compile_seconds": time.perf_counter() - start}
    steps, seconds = chunks[0].count, 0.0
    first = steps
    for chunk in tqdm.tqdm(chunks[1:], desc=precision, unit="call", disable=None):
        start = time.perf_counter()
        losses = loop.train(chunk, steps)
        seconds += time.perf_counter() - start
        steps += chunk.count
    images_per_second = (steps - first) * _BATCH.value / seconds
    computed, useful = _macs(space, rule, steps)
    side, peak = _matmul_macs_per_second(precision)
    alone = _loop(space, precision, BiggestAlone(space))
    memory = _memory_mb(loop, chunks[0])
    alone_memory = _memory_mb(alone, next(iter(alone.chunks(plan, 0, steps))))
    return row | {
        "images_per_second": images_per_second,
        "milliseconds_per_step": 1e3 * _BATCH.value / images_per_second,
        "last_loss_of_biggest": losses[-1]["biggest"],
        "mmacs_per_image_computed": computed / 1e6,
        "mmacs_per_image_useful": useful / 1e6,
        "matmul_side": side,
        "matmul_gmacs_per_second": peak / 1e9,
        "utilization_computed": computed * images_per_second / peak,
        "utilization_useful": useful * images_per_second / peak,
        "memory_mb": memory,
        "memory_mb_biggest_alone": alone_memory,
        "memory_ratio": memory / alone_memory,
    }


def main(argv: list[str]) -> None:
    """Measures every precision and writes the file."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    from bignas_tf.backend import choose_backend

    choose_backend("jax")
    import jax
    import keras

    from bignas_tf.checks import require_choice
    from bignas_tf.files import check_output, write_json
    from bignas_tf.machine import device
    from bignas_tf.spaces import get_space
    from bignas_tf.training.recipe import POLICIES

    space = get_space(_SPACE.value)
    output = pathlib.Path(_JSON.value)
    check_output(output, overwrite=True)
    for precision in _PRECISIONS.value:
        require_choice("precisions", precision, tuple(POLICIES))
    conditions = {
        "space": _SPACE.value,
        "image_size": _image_size(space),
        "batch": _BATCH.value,
        "steps_per_call": _steps_per_call(),
        "calls": _CALLS.value,
        "remat": _REMAT.value,
        "seed": _SEED.value,
        "devices": len(jax.local_devices()),
        "device": device(),
        "cpus": os.cpu_count(),
        "versions": {"jax": jax.__version__, "keras": keras.version()},
    }
    rows = {}
    for precision in _PRECISIONS.value:
        rows[precision] = _measure(space, precision)
        print(precision, *(f"{k}={v:.4g}" for k, v in rows[precision].items()))
    write_json(output, {"conditions": conditions, "results": rows})


if __name__ == "__main__":
    app.run(main)
