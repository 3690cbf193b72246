"""What a run would do and cost, from a few of its steps; nothing is written into its folder."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bignas_tf import cost
from bignas_tf.data.augmentation import epoch_order
from bignas_tf.evaluation import evaluation_mb
from bignas_tf.machine import available_memory, usable_cores
from bignas_tf.training.checkpoints import CheckpointManager
from bignas_tf.training.recipe import Recipe
from bignas_tf.training.run_checkpoints import RunCheckpoints
from bignas_tf.training.state import Teacher, pack
from bignas_tf.training.trainer import Trainer

SAMPLE = 256  # images that are decoded to find broken ones; as many others time the reading
TIMED_CALLS = 10  # at most, and fewer once they have taken so long
TIMED_SECONDS = 20.0


def dry_run(
    recipe: Recipe,
    workdir: str | Path,
    *,
    data: str | None = None,
    loop_options: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Loads the data, trains a few steps and forgets them.

    Args:
        recipe: of the run.
        workdir: folder that the run would write to; it is not made.
        data: source that replaces the recipe's.
        loop_options: of `Trainer`.

    Returns:
        Text for people by subject: 'data', 'space', 'step', 'input', 'memory', 'disk', 'time'.

    Raises:
        CheckpointError: if `workdir` holds a run of another space, recipe or data.
        DataError: for bad data, as the run would; `BrokenImageError` for a broken image among
            a sample.
        OSError: if `workdir` could not be written to, or its disk is too full.
    """
    workdir = Path(workdir)
    place = _writable_place(workdir)
    room = _room()
    with tempfile.TemporaryDirectory(prefix="bignas-dry-run-") as scratch:
        trainer = Trainer(recipe, scratch, data=data, loop_options=loop_options)
        made = _begun(trainer, workdir)
        found = {"disk": _disk(trainer, workdir, place)}
        found |= {"data": _data(trainer), "space": _space(trainer)}
        reading, read = _reading(trainer)
        first, later = _steps(trainer)
    batch, steps = recipe.batch_size, trainer.plan.steps_per_epoch
    mean = sum(later) / len(later)
    # What was read ahead while the first step was traced is gone after a few steps.
    seconds = max(mean, read / reading)
    found["step"] = (
        f"the first call took {first:.1f} s with tracing, then {mean:.3g} s a step "
        f"({min(later):.3g} to {max(later):.3g} s): {batch / mean:.0f} images/s"
    )
    found["input"] = (
        f"{reading:.0f} images/s are read and augmented by {usable_cores()} cores with nothing "
        f"else to do; the steps use {read / mean:.0f}, so {1 - mean / seconds:.0%} of the time "
        "would be spent waiting for data"
    )
    found["memory"] = ", ".join(
        [f"{name} {size / 2**20:.0f} MiB" for name, size in _device_peaks().items()]
        + _process_memory(room)
        + _evaluation_memory(trainer)
    )
    total = seconds * steps * recipe.epochs
    found["time"] = (
        f"{_duration(seconds * steps)} an epoch of {steps} steps, {_duration(total)} for "
        f"{recipe.epochs} epochs, without evaluations"
        + (f"; the run resumes after step {made} of {trainer.total_steps}" if made else "")
    )
    order = ("data", "space", "step", "input", "memory", "disk", "time")
    return {subject: found[subject] for subject in order}


def _writable_place(workdir: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    place = workdir.absolute()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise NotADirectoryError(
            f"`workdir` must be a folder that can be written to. Received: {workdir}"
        )
    return place


def _data(trainer: Trainer) -> str:
    """Counts, class balance, and whether a sample of the images can be decoded."""
    data, source = trainer.data, trainer.data.source
    sizes = np.bincount(source.train.labels, minlength=len(source.classes))
    sample = epoch_order(len(data.train), trainer.recipe.seed, 0)[:SAMPLE]
    for start in range(0, len(sample), 32):
        data.train.read(sample[start : start + 32])
    bad = len(source.bad_images) if source.bad_images else 0
    where = "in memory" if data.train.images is not None else "decoded when read"
    return (
        f"{source.name}: {len(source.classes)} classes of {sizes.min()} to {sizes.max()} training "
        f"images; {len(data.train)} to train on, {len(data.held_out) if data.held_out else 0} held "
        f"out, {len(source.test)} to test; {where}; {bad} bad ones so far, "
        f"{len(sample)} training images looked at"
    )


def _space(trainer: Trainer) -> str:
    space = trainer.space
    ends = [cost.count(genotype.spec()) for genotype in (space.smallest(), space.biggest())]
    macs = " to ".join(f"{end.mmacs:.4g}" for end in ends)
    params = " to ".join(f"{end.params_m:.3g}" for end in ends)
    terms = [
        f"{term.name} {term.genotype['resolution']} px"
        for term in trainer.loop.rule.plan(trainer.recipe.seed, 0)
    ]
    return (
        f"{space.name}: {space.size():.3g} networks, {macs} MMACs, {params} M parameters; "
        f"the first step trains {', '.join(terms)}"
    )


def _reading(trainer: Trainer) -> tuple[float, int]:
    """Images per second that are read and augmented with nothing else to do, and those of a step.

    Both of this worker, those mixed into its own included. They are of the middle of the epoch:
    the first have just been read, which is quicker.
    """
    plan, loop = trainer.plan, trainer.loop
    share = plan.batch_size // loop.workers
    own = slice(loop.worker * share, (loop.worker + 1) * share)
    rows = slice(own.start, own.start + min(SAMPLE, share))
    start = time.perf_counter()
    plan.read(plan.steps_per_epoch // 2, rows)
    seconds = time.perf_counter() - start
    return len(plan.positions(rows)) / seconds, len(plan.positions(own))


def _begun(trainer: Trainer, workdir: Path) -> int:
    """The step after which the run goes on, by the checks of its start; 0 for a new one."""
    teacher = trainer.loop.rule.teacher
    checkpoints = RunCheckpoints(
        workdir,
        trainer.supernet,
        trainer.optimizer,
        trainer.recipe,
        trainer.data,
        trainer.plan,
        teacher=teacher.source if isinstance(teacher, Teacher) else None,
    )
    return checkpoints.restore()


def _steps(trainer: Trainer) -> tuple[float, list[float]]:
    """Seconds of the first call and of a step in each later one, whose children differ.

    All workers end after the same call, that in which the first of them has enough.
    """
    calls: list[float] = []
    begun, step = time.perf_counter(), 0
    for chunk in trainer.loop.chunks(trainer.plan, 0, trainer.total_steps):
        start = time.perf_counter()
        count = len(trainer.loop.train(chunk, step))
        step += count
        calls.append((time.perf_counter() - start) / count)
        if len(calls) == 1:
            first, begun = calls[0] * count, time.perf_counter()
        enough = len(calls) > TIMED_CALLS or time.perf_counter() - begun > TIMED_SECONDS
        if trainer.loop.gather(np.asarray([float(enough)])).any():
            break
    return first, calls[1:] or calls


def _device_peaks() -> dict[str, int]:
    """In bytes, of devices that count them."""
    found = {}
    if keras.backend.backend() == "jax":
        import jax

        for device in jax.local_devices():
            peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
            if peak is not None:
                found[f"peak of {device}"] = peak
    else:
        import tensorflow as tf

        for device in tf.config.list_logical_devices():
            name = f"{device.device_type}:{device.name.rpartition(':')[2]}"
            try:
                peak = tf.config.experimental.get_memory_info(name)["peak"]
            except ValueError:
                continue  # a CPU without the BFC allocator counts nothing
            found[f"peak of {name}"] = peak
    return found


def _process_peak() -> int | None:
    """Bytes of main memory that this process has held at once, where the system says."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _process_held() -> int | None:
    """Bytes of main memory that this process holds now, where the system says."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _room() -> int | None:
    """Bytes that this process may hold from now on without driving others out of memory."""
    available, held = available_memory(), _process_held()
    return None if available is None or held is None else available + held


def _process_memory(room: int | None) -> list[str]:
    """What the steps took of the room that there was before them, at most one text."""
    peak = _process_peak()
    if peak is None:
        return []
    text = f"peak of the process {peak / 2**20:.0f} MiB"
    if room is None:
        return [text]
    more = ", which is more than the" if peak > room else " of"
    return [f"{text}{more} {room / 2**20:.0f} MiB that it may take"]


def _evaluation_memory(trainer: Trainer) -> list[str]:
    """What evaluating the biggest child takes, where the run does that, at most one text."""
    held_out = trainer.data.held_out
    evaluates = trainer.recipe.evaluate_every and held_out is not None
    if not evaluates or held_out is None or keras.backend.backend() == "jax":
        return []  # the evaluator of JAX is another
    counts = (
        -(-len(split) // trainer.loop.workers) for split in (trainer.data.calibration, held_out)
    )
    needed = evaluation_mb(trainer.space.biggest().spec(), *counts) * 1e6
    available = available_memory()
    text = f"about {needed / 2**20:.0f} MiB more while the biggest child is evaluated"
    if available is not None and needed > available:
        text += f", which is more than the {available / 2**20:.0f} MiB that are available"
    return [text]


def _disk(trainer: Trainer, workdir: Path, place: Path) -> str:
    arrays = pack(trainer.supernet, trainer.optimizer).values()
    size = sum(array.nbytes for array in arrays)
    # A new one is whole before an old one goes, and a new best before the old best.
    needed = size * (trainer.checkpoints.manager.keep + 1 + 2)
    there = CheckpointManager(workdir / "checkpoints")
    held = sum(path.stat().st_size for path in [*there.paths(), there.best] if path.exists())
    more = max(needed - held, size)
    free = shutil.disk_usage(place).free
    if free < more:
        raise OSError(
            f"the disk of `workdir` must have {more / 2**20:.0f} MiB more for checkpoints. "
            f"Received: {place} with {free / 2**20:.0f} MiB free"
        )
    return (
        f"checkpoints of {size / 2**20:.1f} MiB, at most {needed / 2**20:.0f} MiB at once; "
        f"{free / 2**30:.1f} GiB are free"
    )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
