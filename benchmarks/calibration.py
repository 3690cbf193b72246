"""Accuracy of calibrated children against what their batch norm is estimated from.

Every selected child of a run is calibrated on more and more training images, by both methods,
in evaluation and in training preprocessing, on several random draws of images, and scored on
the run's held-out training images: none of them trains or calibrates, and the test images
stay unseen while a default is chosen. A row per calibration goes to --csv as soon as it is
done; the same command goes on. The table shows means over draws and, behind the sign, their
standard deviation in points.

python benchmarks/calibration.py --workdir=runs/cifar10 --names=s,l --csv=calibration.csv
"""

import csv
import pathlib
import statistics
import time
import types

from absl import app, flags

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_DATA = flags.DEFINE_string("data", None, "Source, if it has moved since the training.")
_NAMES = flags.DEFINE_list("names", None, "Of selected children; default: all.")
_IMAGES = flags.DEFINE_list(
    "images", [str(2**power) for power in range(6, 14)], "Numbers of images, ascending."
)
_DRAWS = flags.DEFINE_integer("draws", 5, "Random draws of images.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 128, "Images of a batch of batch_average.", lower_bound=1)
_CSV = flags.DEFINE_string("csv", None, "Where the rows go.", required=True)

COLUMNS = (
    "child", "preprocessing", "method", "images", "draw", "top1", "held_out", "seconds", "weights",
    "batch", "seed", "device",
)  # fmt: skip
KEYS = COLUMNS[:5]
PREPROCESSING = ("evaluation", "training")
Row = dict[str, object]


def _key(row) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in KEYS)


class Study:
    """The children of a run, its images, and the rows so far."""

    def __init__(self, trained, data, path: pathlib.Path, batch: int):
        from bignas_tf.checks import require
        from bignas_tf.extract import weights_identity

        self.supernet, self.data, self.path = trained.supernet, data, path
        self.policy, self.seed = trained.recipe.policy(), trained.recipe.seed
        self.rows: list[Row] = []
        self.same = {
            "weights": weights_identity(trained.supernet.weight_arrays()),
            "held_out": str(len(data.held_out)),
            "batch": str(batch),
        }
        if path.exists():
            with path.open(encoding="utf-8", newline="") as text:
                self.rows = list(csv.DictReader(text))
        for row in self.rows:
            other = {name: row.get(name) for name in self.same}
            require(other == self.same, "csv", f"a file of {self.same}", other)
        self._known = {_key(row) for row in self.rows}

    def _add(self, **row) -> None:
        from bignas_tf.files import replacing
        from bignas_tf.machine import device

        row |= self.same
        row |= {"seed": self.seed, "device": device()}
        self.rows.append({column: row.get(column, "") for column in COLUMNS})
        with replacing(self.path) as temporary, temporary.open("w", newline="") as text:
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def _split(self, preprocessing: str, draw: int, images: int):
        """The first of the training images in a random order, augmented or not."""
        from bignas_tf.data import Split
        from bignas_tf.data.augmentation import epoch_order

        train = self.data.train
        index = epoch_order(len(train), draw + 1, 0)[:images]
        pixels = train.read(index)
        if preprocessing == "training":
            draws = self.policy.draw(len(train), draw + 1, 0)
            pixels = self.policy.apply(pixels, {k: v[index] for k, v in draws.items()})
        return Split(train.labels[index], pixels)

    def run(self, name: str, genotype, counts: list[int], draws: int) -> None:
        """Adds all rows of one child that are missing."""
        import numpy as np

        from bignas_tf.calibration import METHODS, batch_norm_statistics
        from bignas_tf.evaluation import correct, prepared

        spec, weights = genotype.spec(), self.supernet.child_weights(genotype)
        labels = self.data.held_out.labels
        held_out = prepared(self.data.held_out, genotype["resolution"])
        for draw in range(draws):
            for preprocessing in PREPROCESSING:
                given = {"child": name, "preprocessing": preprocessing, "draw": draw}
                wanted = [
                    {**given, "method": method, "images": count}
                    for count in counts
                    for method in METHODS
                ]
                wanted = [row for row in wanted if _key(row) not in self._known]
                if not wanted:
                    continue
                split = self._split(preprocessing, draw, max(counts))
                images = prepared(split, genotype["resolution"])
                for row in wanted:
                    chunk = int(self.same["batch"]) if row["method"] == "batch_average" else 256
                    started = time.monotonic()
                    found = batch_norm_statistics(
                        spec, weights, images[: row["images"]], method=row["method"], chunk=chunk
                    )
                    seconds = round(time.monotonic() - started, 3)
                    top1 = float(np.mean(correct(spec, weights | found, held_out, labels)))
                    self._add(**row, top1=top1, seconds=seconds)
                    print(", ".join(_key(row)), f"{top1:.2%} in {seconds:.1f} s", flush=True)

    def table(self) -> list[str]:
        """Mean and standard deviation over draws, a line per number of images."""
        found: dict[tuple[str, str, str, int], list[float]] = {}
        for row in self.rows:
            key = (row["child"], row["preprocessing"], row["method"], int(row["images"]))
            found.setdefault(key, []).append(float(row["top1"]))
        lines = []
        for (child, *how, images), values in found.items():
            spread = 100 * statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.mean(values)
            lines.append(f"{child} {' '.join(how)} {images}: {mean:.2%} ± {spread:.2f}")
        return lines


def main(argv: list[str]) -> None:
    """Calibrates and scores."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    from bignas_tf.checks import require, require_choice
    from bignas_tf.commands.run_folder import load_run, read_selected

    workdir = pathlib.Path(_WORKDIR.value)
    selected = {entry["name"]: entry["genotype"] for entry in read_selected(workdir)}
    names = _NAMES.value or list(selected)
    for name in names:
        require_choice("names", name, tuple(selected))
    trained, data = load_run(types.SimpleNamespace(workdir=workdir, data=_DATA.value))
    counts = [int(count) for count in _IMAGES.value]
    for count in counts:
        require(1 <= count <= len(data.train), "images", f"1 to {len(data.train)}", count)
    study = Study(trained, data, pathlib.Path(_CSV.value), _BATCH.value)
    for name in names:
        genotype = trained.supernet.space.genotype(selected[name])
        study.run(name, genotype, counts, _DRAWS.value)
    print("\n".join(study.table()))


if __name__ == "__main__":
    app.run(main)
