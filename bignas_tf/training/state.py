"""A run's state as one checkpoint, and supernets made from checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops as K

from bignas_tf.data import Split
from bignas_tf.evaluation import forward
from bignas_tf.masked_evaluation import child_evaluator
from bignas_tf.resize import resize
from bignas_tf.spaces import space_from_config
from bignas_tf.spec import NetworkSpec
from bignas_tf.supernet import Supernet
from bignas_tf.training.checkpoints import (
    CheckpointError,
    CheckpointManager,
    read_checkpoint,
)
from bignas_tf.training.optimizer_state import optimizer_arrays, restore_optimizer
from bignas_tf.training.recipe import Recipe
from bignas_tf.weights import slice_weights

WEIGHTS, OPTIMIZER = "weights/", "optimizer/"
AVERAGES = OPTIMIZER + "model_variables_moving_average/"  # Keras's name for them
_KEYS = ("space", "recipe", "classes", "step", "data", "fingerprint")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A supernet from a checkpoint, and what is known of how it came about.

    Attributes:
        supernet: with the weights of the checkpoint, or their average.
        recipe: of the run.
        classes: names, a label being a position in them.
        step: updates made.
        path: of the checkpoint's file.
        data: name of the source that was trained on.
        fingerprint: of that source (`bignas_tf.data.Source`).
    """

    supernet: Supernet
    recipe: Recipe
    classes: tuple[str, ...]
    step: int
    path: Path
    data: str
    fingerprint: str


def pack(supernet: Supernet, optimizer: keras.optimizers.Optimizer) -> dict[str, np.ndarray]:
    """All arrays of a run's state by name."""
    weights = {WEIGHTS + path: array for path, array in supernet.weight_arrays().items()}
    slots = {OPTIMIZER + name: array for name, array in optimizer_arrays(optimizer).items()}
    return weights | slots


def checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of the values of arrays, in the order of their names."""
    found = 0
    for name in sorted(arrays):
        found = zlib.crc32(arrays[name].tobytes(), found)
    return found


def unpack(
    supernet: Supernet, optimizer: keras.optimizers.Optimizer, arrays: Mapping[str, np.ndarray]
) -> None:
    """Puts `pack` back; nothing is changed unless everything fits.

    Raises:
        CheckpointError: if names or shapes do not fit.
    """
    own = supernet.weight_arrays()
    try:
        supernet.assign(_under(WEIGHTS, arrays))
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    try:
        restore_optimizer(optimizer, _under(OPTIMIZER, arrays))
    except CheckpointError:
        supernet.assign(own)
        raise


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


@contextlib.contextmanager
def averaged(supernet: Supernet, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Gives a supernet the average of its weights for a while, where the optimizer keeps one."""
    slots = {OPTIMIZER + name: array for name, array in optimizer_arrays(optimizer).items()}
    averages = _averages(supernet, slots)
    if not averages:
        yield
        return
    own = supernet.weight_arrays()
    try:
        supernet.assign(averages)
        yield
    finally:
        supernet.assign(own)


def _averages(supernet: Supernet, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The averaged weights by `op/weight`; none where none were kept or no step was made."""
    found = [name for name in sorted(arrays) if name.startswith(AVERAGES)]
    if not found or not arrays[OPTIMIZER + "iterations"]:
        return {}
    paths = supernet.variables_by_path()  # slots are numbered in this order
    return {path: arrays[name] for path, name in zip(paths, found, strict=True)}


def require_run(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that no training run wrote.

    Raises:
        CheckpointError: naming what it lacks.
    """
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise CheckpointError(
            f"Checkpoint {path} must be that of a run. Received: one without {', '.join(missing)}"
        )


def load_trained(path: str | Path, argument: str = "workdir") -> Trained:
    """Loads a supernet from a checkpoint file, or the newest of a run's folder.

    Its weights are their moving average where the recipe keeps one.

    Args:
        path: the file or folder.
        argument: what errors call it.

    Raises:
        CheckpointError: if there is none, or it is damaged or of another kind.
    """
    path = Path(path)
    if path.is_dir():
        restored = CheckpointManager(path / "checkpoints").restore_latest()
        if restored is None:
            raise CheckpointError(
                f"`{argument}` must hold the checkpoints of a run. Received: {path}"
            )
        path, arrays, metadata = restored.path, restored.arrays, restored.metadata
    else:
        if not path.is_file():
            raise CheckpointError(
                f"`{argument}` must be a run's folder or a checkpoint. Received: {path}"
            )
        arrays, metadata = read_checkpoint(path)
    require_run(path, metadata)
    space = space_from_config(metadata["space"])
    recipe = Recipe.from_json(metadata["recipe"])
    supernet = Supernet(space, seed=recipe.seed, zero_gamma=recipe.zero_gamma)
    supernet.assign(_averages(supernet, arrays) or _under(WEIGHTS, arrays))
    return Trained(
        supernet,
        recipe,
        tuple(metadata["classes"]),
        metadata["step"],
        path,
        metadata["data"],
        metadata["fingerprint"],
    )


def initialize_from(supernet: Supernet, path: str | Path) -> list[str]:
    """Starts a supernet from the weights of another, of its space or one it is a part of.

    A part (`Space.restricted`), such as a single child, takes its slices. The
    classifier is taken only where the number of classes is the same.

    Returns:
        Names of the weights that keep their own initial values.

    Raises:
        CheckpointError: for a checkpoint of another space.
    """
    given = load_trained(path, "init_from").supernet
    _require_part(supernet.space, given.space, path)
    sliced = slice_weights(given.weight_arrays(), supernet.space.ops())
    own = supernet.weight_arrays()
    same_classes = given.space.classes == supernet.space.classes
    kept = [n for n, r in supernet.roles().items() if r.role == "head" and not same_classes]
    supernet.assign({name: own[name] if name in kept else sliced[name] for name in own})
    return kept


def _require_part(space: Any, whole: Any, path: str | Path) -> None:
    """Requires a space to be another with fewer choices, but for its classes."""
    choices = {gene.name: gene.choices for gene in space.genes}
    try:
        part = whole.restricted(choices)
    except ValueError as error:
        raise CheckpointError(
            f"`init_from` must be a checkpoint of space '{space.name}' with all of its choices. "
            f"Received: {path}, of another: {error}"
        ) from error
    free = ("name", "classes", "dropout", "training_resolutions")  # the weights do not see them
    other = [k for k, v in part.config().items() if v != space.config().get(k) and k not in free]
    if other:
        raise CheckpointError(
            f"`init_from` must be a checkpoint of space '{space.name}'. "
            f"Received: {path}, whose `{other[0]}` is another"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A network that is fixed, as `Rule.teacher`.

    Args:
        spec: of the network.
        weights: by `op/weight`, moving statistics included, float32.
        source: where it comes from: the 'file' and 'step' of the checkpoint and the 'crc32' of
            its weights. A run that goes on must have the same.
    """

    spec: NetworkSpec
    weights: Mapping[str, np.ndarray]
    source: Mapping[str, str | int]

    def __call__(self, images: Any) -> Any:
        """Logits, `(batch, classes)`, of images in the input range, of any size and float type."""
        images = K.cast(images, "float32")  # a student's may have fewer bits
        return forward(self.spec, self.weights, resize(images, self.spec.input_shape[0]))


def teacher_from(path: str | Path, calibration: Split, classes: Sequence[str]) -> Teacher:
    """The biggest child of a run, calibrated and fixed.

    Args:
        path: of the run, of which the newest checkpoint is taken, or its checkpoint.
        calibration: training images for its batch-norm statistics.
        classes: of the student in their order, which must be the teacher's.

    Raises:
        CheckpointError: if there is none, or its classes are others.
    """
    trained = load_trained(path, "teacher")
    if tuple(classes) != trained.classes:
        raise CheckpointError(
            f"`teacher` must be a run with the same classes in the same order: "
            f"{_first_difference(classes, trained.classes)}. Received: {path}"
        )
    genotype = trained.supernet.space.biggest()
    evaluator = child_evaluator(trained.supernet, calibration, calibration)
    source: dict[str, str | int] = {
        "file": trained.path.name,
        "step": trained.step,
        "crc32": checksum(trained.supernet.weight_arrays()),
    }
    return Teacher(genotype.spec(), evaluator.finished_weights(genotype), source)


def _first_difference(own: Sequence[str], other: Sequence[str]) -> str:
    if len(own) != len(other):
        return f"{len(own)}, not {len(other)}"
    return next(
        f"number {number} is {mine!r}, not {theirs!r}"
        for number, (mine, theirs) in enumerate(zip(own, other, strict=True))
        if mine != theirs
    )
