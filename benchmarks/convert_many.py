r"""Converts many random children to TFLite: does every one convert and agree with Keras?

    python benchmarks/convert_many.py --space=cifar --run=cifar10 --data=folder:CIFAR10
    python benchmarks/convert_many.py --space=bignas --count=50 --quantizations=float32

Each child is cut from the supernet, its batch norm calibrated, and converted with every check of
`bignas convert`, on images that set no range. The supernet and its training images are those of
--run, a folder or a name of the zoo; without it an untrained one with random scales and offsets
of its batch norms, and images that come with scikit-learn. What is finished is kept in
FOLDER/SPACE.CODE.jsonl, CODE being a hash of what the package converts with: a second call goes
on, changed code starts anew. Ends with a table, and with status 1 if a child failed. A process
converts 25 children and ends: TensorFlow keeps about 25 MB of each.
A CPU core takes about 5 s per file of `cifar`, 12 s of `bignas`.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("space", "cifar", "Name of the space.")
flags.DEFINE_integer("count", 200, "Random children.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of the children, and of untrained weights.")
flags.DEFINE_list("quantizations", ["float32", "int8"], "What to convert each child to.")
flags.DEFINE_string("run", None, "Folder of a trained run of that space, or a zoo supernet.")
flags.DEFINE_string("data", None, "Source of the run, if it has moved since the training.")
flags.DEFINE_string("folder", "runs/convert_many", "Folder of the finished ones.")
flags.DEFINE_integer("upto", None, "Of a process that main starts: the child it ends before.")

AT_ONCE = 25  # children of one process
VERIFIED, CALIBRATED = 64, 256  # images, where the source has them
Images = Callable[[int], tuple[np.ndarray, np.ndarray]]  # of a resolution: to verify, to calibrate


def untrained(space: Any, seed: int) -> Any:
    """A supernet whose every batch norm does something."""
    from bignas_tf.supernet import Supernet

    supernet = Supernet(space, seed=seed, zero_gamma=False)
    random = np.random.Generator(np.random.Philox(seed))
    limits = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5)}
    arrays = supernet.weight_arrays()
    for name in sorted(arrays):
        kind = name.rsplit("/", 1)[-1]
        if kind in limits:
            arrays[name] = random.uniform(*limits[kind], arrays[name].shape).astype("float32")
    supernet.assign(arrays)
    return supernet


def trained(run: str, data: str | None) -> tuple[Any, Images]:
    """The supernet and training images of a run, or of the zoo."""
    from bignas_tf.commands.convert import spread
    from bignas_tf.evaluation import prepared
    from bignas_tf.training.run_data import load_run_data
    from bignas_tf.training.state import load_trained
    from bignas_tf.zoo.trained import list_supernets, supernet_file

    found = load_trained(supernet_file(run) if run in list_supernets() else run, "run")
    split = load_run_data(found.recipe, data or found.data).calibration
    verified, calibrated = spread(len(split))
    return found.supernet, lambda size: (
        prepared(split.take(verified), size),
        prepared(split.take(calibrated), size),
    )


def scikit_learn_images(channels: int) -> Images:
    """Crops of photographs, or digits."""
    from bignas_tf.deploy.verification_images import real_images

    def images(size: int) -> tuple[np.ndarray, np.ndarray]:
        # Big images take long, and have more positions to calibrate with.
        count = VERIFIED + CALIBRATED if size <= 64 else 48
        every = real_images((size, size, channels), count=count)
        chosen = np.arange(count) % (count * 2 // VERIFIED if size <= 64 else 3) == 0
        return every[chosen], every[~chosen]

    return images


def subject() -> tuple[Any, Images, str]:
    """The supernet, its images, and where its weights are from."""
    from bignas_tf.checks import require
    from bignas_tf.spaces import get_space

    if FLAGS.run:
        supernet, images = trained(FLAGS.run, FLAGS.data)
        name = supernet.space.name
        require(name == FLAGS.space, "run", f"a run of space {FLAGS.space!r}", name)
        return supernet, images, FLAGS.run
    network = get_space(FLAGS.space)
    supernet = untrained(network, FLAGS.seed)
    source = f"untrained, random batch norm, seed {FLAGS.seed}"
    return supernet, scikit_learn_images(network.input_channels), source


def finished(path: Path, identity: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier call; starts the file if there is none.

    Raises:
        ValueError: if the file is of other weights or another seed.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(identity) + "\n", encoding="utf-8")
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    if json.loads(lines[0]) != identity:
        raise ValueError(f"`folder` must be one for {identity}. Received: {path} of {lines[0]}")
    # What an interrupted call wrote last may be half a line.
    whole = lines[: len(lines) - 1]
    path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
    return [json.loads(line) for line in whole[1:]]


def converted(child: Any, kind: str, images: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """One row: the figures of a file that passed, or why it did not."""
    import dataclasses

    from bignas_tf.deploy.tflite import convert

    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = convert(
                child,
                Path(folder) / "child.tflite",
                quantization=kind,
                calibration_images=images[1],
                verification_images=images[0],
            )
    except (ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    if done.folding is None:
        return {"error": "the folding of batch norm was not checked"}
    figures = dataclasses.asdict(done.verification) | {"telling": done.verification.telling}
    return {
        "error": None,
        "bytes": done.bytes,
        "parts": done.graph.delegate_parts,
        "outside": done.graph.outside,
        "seconds": round(time.perf_counter() - started, 1),
        **figures,
    }


def rows_of(
    supernet: Any, images: Images, kinds: list[str], known: set[tuple[int, str]]
) -> Iterator[dict[str, Any]]:
    """Converts what is not `known` yet."""
    import keras
    import tqdm

    from bignas_tf.calibration import calibrate
    from bignas_tf.extract import extract

    genotypes = supernet.space.sample(FLAGS.count, FLAGS.seed)
    with tqdm.tqdm(total=len(genotypes) * len(kinds), desc="converting", unit="file") as bar:
        for index, genotype in enumerate(genotypes[: FLAGS.upto]):
            wanted = [kind for kind in kinds if (index, kind) not in known]
            bar.update(len(kinds) - len(wanted))
            if not wanted:
                continue
            child = extract(supernet, genotype)
            pictures = images(genotype["resolution"])
            calibrate(child, np.concatenate(pictures))
            for kind in wanted:
                row = {"index": index, "quantization": kind, "genotype": genotype.as_dict()}
                yield row | converted(child, kind, pictures)
                bar.update()
            del child
            keras.backend.clear_session()


def table(rows: list[dict[str, Any]], kinds: list[str]) -> str:
    """One line per quantization; differences relative to the scale of the outputs."""
    head = "quantization  files  failed  largest  mean     agreement least/mean  hardly telling"
    lines = [head + "  most parts  median s"]
    for kind in kinds:
        own = [row for row in rows if row["quantization"] == kind]
        good = [row for row in own if row["error"] is None]
        line = f"{kind:12}  {len(own):5}  {len(own) - len(good):6}"
        if good:
            largest = max(row["max_difference"] / row["scale"] for row in good)
            mean = statistics.mean(row["mean_difference"] / row["scale"] for row in good)
            agreement = [row["agreement"] for row in good]
            line += (
                f"  {largest:7.1e}  {mean:7.1e}  "
                f"{min(agreement):9.3f} / {statistics.mean(agreement):.3f}   "
                f"{sum(not row['telling'] for row in good):14}  "
                f"{max(row['parts'] for row in good):10}  "
                f"{statistics.median(row['seconds'] for row in good):8.1f}"
            )
        lines.append(line)
    return "\n".join(lines)


def code() -> str:
    """Hash of what converts: what an earlier state of it converted tells nothing of this one."""
    import bignas_tf

    root = Path(bignas_tf.__file__).parent
    others = ("cli", "commands", "report", "search", "sweep", "training", "zoo")
    others += ("deploy/android", "deploy/block_latency", "deploy/finetuning", "deploy/latency")
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if not path.relative_to(root).as_posix().startswith(others):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def convert_some(path: Path, kinds: list[str]) -> None:
    """Converts the children before `upto` that are not in the file yet."""
    from bignas_tf.deploy.sidecar import versions
    from bignas_tf.extract import weights_identity

    supernet, images, source = subject()
    weights = weights_identity(supernet.weight_arrays())
    identity = {"space": FLAGS.space, "seed": FLAGS.seed, "weights": weights, "from": source}
    identity |= {"versions": versions()}
    known = {(row["index"], row["quantization"]) for row in finished(path, identity)}
    with path.open("a", encoding="utf-8") as file:
        for row in rows_of(supernet, images, kinds, known):
            file.write(json.dumps(row) + "\n")
            file.flush()


def main(argv: list[str]) -> int:
    """Converts, prints the table, and tells by the status whether all passed."""
    from bignas_tf.deploy.schemes import Quantization

    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    kinds = [Quantization.parse(kind).value for kind in FLAGS.quantizations]
    path = Path(FLAGS.folder) / f"{FLAGS.space}.{code()}.jsonl"
    if FLAGS.upto is not None:
        convert_some(path, kinds)
        return 0
    names = ("space", "count", "seed", "quantizations", "run", "data", "folder")
    given = [FLAGS[name].serialize() for name in names if FLAGS[name].value is not None]
    for upto in range(AT_ONCE, FLAGS.count + AT_ONCE, AT_ONCE):
        command = [sys.executable, __file__, *given, f"--upto={min(upto, FLAGS.count)}"]
        done = subprocess.run(command, check=False)  # noqa: S603 - this script
        if done.returncode:
            return done.returncode
    header, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    counted = [row for row in rows if row["index"] < FLAGS.count and row["quantization"] in kinds]
    print(f"space {FLAGS.space}, weights: {header['from']}; {path}")
    print(table(counted, kinds))
    failed = [row for row in counted if row["error"]]
    for row in failed:
        print(f"failed: child {row['index']}, {row['quantization']}: {row['error']}")
    return 1 if failed else 0


if __name__ == "__main__":
    from bignas_tf.backend import tune_tensorflow

    tune_tensorflow()
    app.run(lambda argv: sys.exit(main(argv)))
