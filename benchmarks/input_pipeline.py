"""Speed of reading and augmenting JPEG files, and how long training steps wait for it.

Images per second of whole batches, from files to augmented uint8 arrays, with each policy, as the
trainer reads them but with nothing else to do; then, with one of them, the share of a training
step's time that passes until its batch is there, and how much shorter a step is that trains on the
same batch again: threads that decode take time from a step on the CPU that does not wait.

Without --data files are made: smooth random pictures of 500 x 375 pixels, of some 110 kB as
ImageNet's, which decode like photographs. They are read often enough to lie in the system's cache:
what a disk or a network adds is not measured.

python benchmarks/input_pipeline.py --json=input_pipeline.json
"""

import gc
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from absl import app, flags

_DATA = flags.DEFINE_string("data", None, "Source, such as folder:PATH, instead of files made.")
_FILES = flags.DEFINE_integer("files", 1024, "Files to make.", lower_bound=64)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Pixels.", lower_bound=8)
_BATCH = flags.DEFINE_integer("batch", 128, "Images.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 8, "Timed batches of each policy.", lower_bound=1)
_TRAIN_STEPS = flags.DEFINE_integer(
    "train_steps", 10, "Timed training steps; 0: none.", lower_bound=0
)
_TRAIN_BATCH = flags.DEFINE_integer("train_batch", 32, "Images of a training step.", lower_bound=1)
_TRAIN_POLICY = flags.DEFINE_string("train_policy", "crop_autoaugment", "Of the training steps.")
_SPACE = flags.DEFINE_string("space", "bignas", "Trained in, resolutions up to --image_size.")
_BACKEND = flags.DEFINE_enum("backend", "tensorflow", ["tensorflow", "jax"], "Keras's.")
_SEED = flags.DEFINE_integer("seed", 0, "Of files, order and draws.")
_JSON = flags.DEFINE_string("json", None, "File to write.", required=True)

READ_AHEAD = 6  # batches, of the pipeline
UNTIMED = 2  # batches, until all threads are busy
_CROP = {"crop": 0.08, "flip": True, "value": 128}
POLICIES: dict[str, dict[str, Any]] = {
    "centre": {},
    "crop": _CROP,
    "crop_autoaugment": {**_CROP, "operations": "autoaugment"},
    "crop_autoaugment_v0": {**_CROP, "operations": "autoaugment_v0"},
    "crop_randaugment": {**_CROP, "operations": "randaugment"},
    "crop_mixup": {**_CROP, "mixup": 0.2},
    "crop_cutout": {**_CROP, "cutout": 64},
}


def _make_files(root: pathlib.Path) -> str:
    """Two classes of pictures, some to test."""
    import numpy as np
    import tqdm
    from PIL import Image

    rng = np.random.default_rng(_SEED.value)
    for number in tqdm.trange(_FILES.value, desc="files", disable=None):
        part = "val" if number % 32 == 0 else "train"
        folder = root / part / str(number // 32 % 2)
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (94, 125, 3), np.uint8))
        picture = coarse.resize((500, 375), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.jpg", quality=95)
    return f"folder:{root}"


def _plan(split: Any, policy: str, batch: int) -> Any:
    from bignas_tf.data import AugmentationPolicy, BatchPlan

    fields = AugmentationPolicy.from_dict(POLICIES[policy])
    return BatchPlan(split, batch_size=batch, policy=fields, seed=_SEED.value)


def _batches(plan: Any) -> Iterator[Any]:
    """What the backend's loop reads, as it reads it."""
    if _BACKEND.value == "jax":
        return map(plan.read, itertools.count())
    from bignas_tf.data.pipeline import TrainingBatches

    return TrainingBatches(plan, 0)


def _read(split: Any, policy: str) -> dict[str, float]:
    """Images per second of batches that are taken as soon as they are there."""
    batches = _batches(_plan(split, policy, _BATCH.value))
    for _ in range(UNTIMED):
        next(batches)
    start = time.perf_counter()
    cpu = time.process_time()
    for _ in range(_STEPS.value):
        next(batches)
    seconds = time.perf_counter() - start
    images = _STEPS.value * _BATCH.value
    return {
        "images_per_second": images / seconds,
        "cpu_milliseconds_per_image": 1e3 * (time.process_time() - cpu) / images,
        "cores_used": (time.process_time() - cpu) / seconds,
    }


def _space(classes: int) -> Any:
    from bignas_tf.spaces import get_space

    space = get_space(_SPACE.value, classes)
    fitting = tuple(r for r in space.resolutions if r <= _IMAGE_SIZE.value)
    return space.restricted({"resolution": fitting or space.resolutions[:1]})


def _loop(space: Any, batch: int) -> Any:
    from bignas_tf.supernet import Supernet
    from bignas_tf.training.optimizers import build_optimizer
    from bignas_tf.training.rule import SandwichRule

    if _BACKEND.value == "jax":
        from bignas_tf.training.jax_loop import JaxLoop as Loop
    else:
        from bignas_tf.training.tensorflow_loop import TensorflowLoop as Loop
    return Loop(
        Supernet(space, seed=_SEED.value),
        SandwichRule(space, label_smoothing=0.1),
        build_optimizer({"kind": "sgd"}, 0.01),
        batch_size=batch,
        weight_decay=1e-5,
        seed=_SEED.value,
    )


def _train(split: Any, classes: int) -> dict[str, float]:
    """Waiting and working time of training steps, once what was read ahead is used up."""
    batch = _TRAIN_BATCH.value
    plan = _plan(split, _TRAIN_POLICY.value, batch)
    loop = _loop(_space(classes), batch)
    chunks = loop.chunks(plan, 0, 2**31)
    step, waited, worked, first = 0, 0.0, 0.0, None
    while first is None or step - first < _TRAIN_STEPS.value:
        start = time.perf_counter()
        chunk = next(chunks)
        ready = time.perf_counter()
        made = len(loop.train(chunk, step))
        step += made
        if step <= max(made, READ_AHEAD):  # traces, and what was read ahead meanwhile
            continue
        first = step - made if first is None else first
        waited += ready - start
        worked += time.perf_counter() - ready
    steps = step - first
    seconds = (waited + worked) / steps
    chunks.close()
    gc.collect()
    again = _seconds_per_step(loop, chunk, first, steps)
    return {
        "steps": steps,
        "images_per_second": batch / seconds,
        "seconds_per_step": seconds,
        "share_waiting": waited / (waited + worked),
        "seconds_per_step_without_reading": again,
        "share_of_reading": 1 - again / seconds,
    }


def _seconds_per_step(loop: Any, chunk: Any, first: int, steps: int) -> float:
    """Time of the same steps, so of the same children, on one chunk, once nobody reads any more."""
    made = len(loop.train(chunk, first))  # meanwhile what was being read is read
    start = time.perf_counter()
    for step in range(first, first + steps, made):
        loop.train(chunk, step)
    return (time.perf_counter() - start) / steps


def main(argv: list[str]) -> None:
    """Measures every policy and the training steps, and writes the file."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    from bignas_tf.backend import choose_backend

    choose_backend(_BACKEND.value)
    import keras
    import PIL

    from bignas_tf.checks import require, require_choice
    from bignas_tf.data import load_source
    from bignas_tf.files import check_output, write_json
    from bignas_tf.machine import cpu_model, device, usable_cores
    from bignas_tf.spaces import get_space

    output = pathlib.Path(_JSON.value)
    check_output(output, overwrite=True)
    require_choice("train_policy", _TRAIN_POLICY.value, tuple(POLICIES))
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bignas-input-") as folder:
        name = _DATA.value or _make_files(pathlib.Path(folder))
        channels = get_space(_SPACE.value).input_channels
        source = load_source(name, image_size=_IMAGE_SIZE.value, channels=channels, encoded=True)
        for batch in (_BATCH.value, _TRAIN_BATCH.value):
            most = len(source.train)
            require(batch <= most, "batch", f"at most the training images, {most}", batch)
        for policy in POLICIES:
            rows[policy] = _read(source.train, policy)
            print(policy, *(f"{k}={v:.4g}" for k, v in rows[policy].items()))
        training = _train(source.train, len(source.classes)) if _TRAIN_STEPS.value else None
    if training:
        print("training", *(f"{k}={v:.4g}" for k, v in training.items()))
    conditions = {
        "data": _DATA.value or f"{_FILES.value} JPEG files of 500 x 375 pixels",
        "image_size": _IMAGE_SIZE.value,
        "batch": _BATCH.value,
        "train_batch": _TRAIN_BATCH.value,
        "train_policy": _TRAIN_POLICY.value,
        "space": _SPACE.value,
        "backend": _BACKEND.value,
        "seed": _SEED.value,
        "device": device(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "cpus": os.cpu_count(),
        "versions": {"keras": keras.version(), "pillow": PIL.__version__},
    }
    write_json(output, {"conditions": conditions, "reading": rows, "training": training})


if __name__ == "__main__":
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    app.run(main)
