"""A recipe's images, split the same way by every command of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bignas_tf.data import DataError, Source, Split, hold_out, load_source
from bignas_tf.data.augmentation import epoch_order
from bignas_tf.files import read_json, write_json
from bignas_tf.training.recipe import Recipe

# Draws of held-out and calibration images never change with a run's seed, so that runs
# of several seeds are compared on the same images.
SPLIT_SEED = 0


@dataclasses.dataclass(frozen=True)
class RunData:
    """A source as a run uses it.

    Attributes:
        source: as loaded.
        train: images to train on.
        held_out: training images for selection; None if the recipe holds out none.
        calibration: images of `train` for batch-norm statistics.
    """

    source: Source
    train: Split
    held_out: Split | None
    calibration: Split

    def describe(self) -> dict[str, Any]:
        """As run.json says it."""
        return {
            "source": self.source.name,
            "fingerprint": self.source.fingerprint,
            "train": len(self.train),
            "held_out": len(self.held_out) if self.held_out else 0,
            "test": len(self.source.test),
        }


def load_run_data(recipe: Recipe, data: str | None = None) -> RunData:
    """Loads a recipe's source and splits it as every command of the run does.

    Raises:
        DataError: for bad data.
        ValueError: if no source is given.
    """
    name = data or recipe.data
    if name is None:
        raise ValueError(
            f"`data` must be given for recipe '{recipe.name}', such as folder:PATH. Received: None"
        )
    space = recipe.build_space()
    source = load_source(
        name,
        image_size=recipe.image_size,
        channels=space.smallest().spec().input_shape[-1],
        on_bad_image=recipe.on_bad_image,
        encoded=recipe.policy().crop > 0,
    )
    train, held_out = source.train, None
    if recipe.held_out:
        most = len(train) - len(source.classes)
        share = recipe.held_out * len(train) if recipe.held_out < 1 else recipe.held_out
        count = max(1, round(share))
        if count > most:
            raise DataError(
                f"`held_out` of recipe '{recipe.name}' must leave {name} an image of each class, "
                f"so be at most {most}. Received: {recipe.held_out}"
            )
        train, held_out = hold_out(train, count, SPLIT_SEED)
    calibration = train
    if recipe.calibration_images < len(train) - len(source.classes):
        calibration = hold_out(train, recipe.calibration_images, SPLIT_SEED + 1)[1]
    # Folders are sorted by class; statistics of a batch should be those of all classes.
    calibration = calibration.take(epoch_order(len(calibration), SPLIT_SEED, 0))
    return RunData(source, train, held_out, calibration)


def list_bad_images(source: Source, workdir: Path, worker: int = 0) -> str | None:
    """Adds the images that were skipped to bad_images.json, reasons by name.

    Args:
        source: with those that this process has met.
        workdir: folder of the run.
        worker: number of this process; others than 0 have a bad_images.worker1.json.

    Returns:
        A line for people if there are new ones, else None.
    """
    path = workdir / (f"bad_images.worker{worker}.json" if worker else "bad_images.json")
    found = source.bad_images.reasons() if source.bad_images else {}
    known = read_json(path) if path.is_file() else {}
    new = sorted(set(found) - set(known))
    if not new:
        return None
    write_json(path, dict(sorted({**known, **found}.items())))
    return f"{len(new)} more images cannot be decoded, such as {new[0]}; all are in {path}"
