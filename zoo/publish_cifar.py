"""Puts the children of a CIFAR-10 run, and its supernet, into the zoo.

The run must have been selected with --names=s,m,l,xl, extracted and evaluated. Writes weights
and supernets.json to bignas_tf/zoo/files/, bignas_tf/zoo/bignascifar.json and the card, all
from what the run's own files say.

bignas extract --workdir=RUN && bignas evaluate --workdir=RUN
python zoo/publish_cifar.py --workdir=RUN --command='python benchmarks/evidence.py ...'
"""

import argparse
import json
import pathlib
import types

NAME, FAMILY = "cifar10", "bignascifar"
SIZES = ("s", "m", "l", "xl")
ORIGIN = (
    "Found by coarse-to-fine selection among the children of a supernet of the space `cifar`, "
    "on held-out training images of CIFAR-10."
)

USAGE = """```python
import numpy as np
from PIL import Image, ImageOps

from bignas_tf import zoo

model, side = zoo.get_model("bignascifar_xl", weights="cifar10")
labels = zoo.get_preset("bignascifar_xl")["labels"]

picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")  # upright
picture = ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC)  # its centre square
scores = model.predict(np.asarray(picture, "float32")[None], verbose=0)
for label, score in zoo.decode_predictions(scores, top=3, labels=labels)[0]:
    print(f"{label} {score:.3f}")
```
"""

SOURCE = "ours: `bignas evaluate` on all test images of CIFAR-10, see zoo/cards/BigNASCifar.md"


def file_entry(path: pathlib.Path) -> dict[str, str]:
    """Name and hash of a published file."""
    from bignas_tf.zoo.download import sha256_of

    return {"file": path.name, "sha256": sha256_of(path)}


def write_child(child: pathlib.Path, described: dict, path: pathlib.Path) -> None:
    """The weights of an extracted child as those of the zoo's model."""
    import keras
    import numpy as np

    from bignas_tf.child import build_child
    from bignas_tf.extract import assign_weights
    from bignas_tf.spec import NetworkSpec

    found = keras.models.load_model(child, compile=False)
    model = build_child(
        NetworkSpec.from_json(described["spec"]),
        include_preprocessing=True,
        classifier_activation="softmax",
    )
    # A dropout layer's random state is a variable too, of another name in every model.
    variables = [v for v in found.variables if "seed_generator" not in v.path]
    assign_weights(model, {v.path: np.asarray(v) for v in variables})
    model.save_weights(path)


def preset_entry(described: dict, weights: pathlib.Path, accuracy: dict) -> dict[str, object]:
    """An entry of bignascifar.json."""
    return {
        "spec": described["spec"],
        "space": described["space"],
        "genotype": described["genotype"],
        "resolution": described["resolution"],
        "image_size": described["image_size"],
        "crop": 1.0,
        "interpolation": described["interpolation"],
        "labels": described["labels"],
        "input_range": [0, 255],
        "macs": described["macs"],
        "params": described["params"],
        "ours": True,
        "published": None,
        "origin": ORIGIN,
        "weights": {NAME: file_entry(weights)},
        "accuracy": {
            NAME: {key: accuracy[key] for key in ("top1", "top1_interval", "top1_uncalibrated")}
            | {"source": SOURCE}
        },
    }


def write_supernet(trained, path: pathlib.Path) -> dict:
    """The supernet's weights without the optimizer's; returns the metadata."""
    from bignas_tf.training.checkpoints import read_metadata, write_checkpoint
    from bignas_tf.training.state import WEIGHTS

    arrays = {WEIGHTS + k: v for k, v in trained.supernet.weight_arrays().items()}
    metadata = read_metadata(trained.path)
    metadata["data"] = metadata["recipe"]["data"] = None  # where its images lay means nothing here
    write_checkpoint(path, arrays, metadata)
    return metadata


def write_front(trained, data, workdir: pathlib.Path, path: pathlib.Path) -> int:
    """The front of the search with the statistics of its children; returns their number.

    Selected children are among them, of which one may be dearer than another of its accuracy.
    """
    from bignas_tf.evaluation import ChildEvaluator
    from bignas_tf.json_lines import read_lines
    from bignas_tf.search import front
    from bignas_tf.search.results import read_selected
    from bignas_tf.search.select import POINTS
    from bignas_tf.training.checkpoints import write_checkpoint

    searched = read_lines(workdir / "select" / POINTS)
    selected = [entry["genotype"] for entry in read_selected(workdir / "select")]
    points = front(searched)
    points += [p for p in searched if p["genotype"] in selected and p not in points]
    points.sort(key=lambda point: point["mmacs"])
    evaluator = ChildEvaluator(trained.supernet, data.calibration, data.held_out)
    arrays = {}
    for position, point in enumerate(points):
        genotype = trained.supernet.space.genotype(point["genotype"])
        for name, value in evaluator.finished_weights(genotype).items():
            if name.endswith(("moving_mean", "moving_variance")):
                arrays[f"{position}/{name}"] = value
    write_checkpoint(path, arrays, {"points": points})
    return len(points)


def _training(recipe: dict, steps_per_epoch: int) -> str:
    """Sentence on what the supernet was trained for."""
    length = f"{recipe['epochs']} epochs of {steps_per_epoch} steps at batch {recipe['batch_size']}"
    if recipe["ema"]:
        length += f", children cut from averaged weights (decay {recipe['ema']:g})"
    return (
        f"{length}; {recipe['held_out']:,} training images held out for the selection, "
        f"{recipe['calibration_images']:,} for batch-norm statistics, seed {recipe['seed']}"
    )


def _card(presets: dict, metadata: dict, evaluation: dict, command: str) -> str:
    recipe, images = metadata["recipe"], evaluation["images"]
    rows = "\n".join(
        f"| BigNASCifar{size.upper()} | {p['resolution']} | {p['macs'] / 1e6:.2f} | "
        f"{p['params'] / 1e6:.4f} M | {100 * a['top1']:.2f} % | {100 * a['top1_interval'][0]:.2f} "
        f"to {100 * a['top1_interval'][1]:.2f} |"
        for size in SIZES
        for p in [presets[f"{FAMILY}_{size}"]]
        for a in [p["accuracy"][NAME]]
    )
    low, high = (100 * evaluation[name]["top1"] for name in ("smallest", "biggest"))
    return f"""# BigNASCifar S, M, L, XL

Children of one supernet of the space `cifar`, cut out and calibrated, never finetuned.

| model | pixels | MMACs | params | top-1, {images:,} test images | 95 % over images |
|---|---|---|---|---|---|
{rows}

The supernet's smallest child has {low:.2f} %, its biggest {high:.2f} %. One seed.

**Usage.** `BigNASCifarS(weights="{NAME}")` and its like from `bignas_tf.zoo`, with the arguments of
keras.applications; or by name, from a picture to its classes:

{USAGE}
**Your own child.** `bignas extract --supernet={NAME} --budget=mmacs:4` cuts the best child of the
search's front under a budget, with its statistics; with `--data` any `--genotype`.

**Images.** RGB, 32 x 32 pixels, resized to the model's pixels with antialiased bicubic
interpolation; values in [0, 255], which the model maps to [-1, 1]. Classes in this order:
{", ".join(metadata["classes"])}.

**Data.** CIFAR-10: 50,000 training and {images:,} test images. The test images have no part in
training, calibration or selection.

**Training.** {_training(recipe, metadata["steps_per_epoch"])}:

    {command}

**Evaluation.** All test images, once, without finetuning; the intervals are Wilson's over
images, not over seeds. The table's figures again, a line each:

    for size in s m l xl; do bignas evaluate --model={FAMILY}_$size --data=folder:CIFAR10; done

with CIFAR-10 as folders `train/CLASS/*` and `test/CLASS/*`, or `--data=tfds:cifar10`.

**How counted.** MACs are multiply-accumulates of convolutions and dense layers for one image,
parameters the trainable ones (`bignas show {FAMILY}_s` has them block by block).

**Limits.** CIFAR-10's ten classes at 32 pixels and nothing else; not tried on other images.

**License.** Apache-2.0, as this package. CIFAR-10: Krizhevsky, "Learning Multiple Layers of
Features from Tiny Images", 2009.
"""


def main() -> None:
    """Writes everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder of the run")
    parser.add_argument("--data", help="source, if it has moved since the training")
    parser.add_argument("--command", required=True, help="that trained it, for the card")
    parser.add_argument("--root", type=pathlib.Path, default=".", help="of the repository")
    arguments = parser.parse_args()
    from bignas_tf.commands.run_folder import child_files, load_run, require_current
    from bignas_tf.files import write_json

    workdir, root = arguments.workdir, arguments.root
    trained, data = load_run(types.SimpleNamespace(workdir=workdir, data=arguments.data))
    require_current(child_files(workdir), trained)
    evaluation = json.loads((workdir / "evaluation.json").read_text(encoding="utf-8"))
    files = root / "bignas_tf" / "zoo" / "files"
    files.mkdir(parents=True, exist_ok=True)
    entries = {}
    for size in SIZES:
        child = workdir / "children" / f"{size}.keras"
        described = json.loads(child.with_suffix(".json").read_text(encoding="utf-8"))
        weights = files / f"{FAMILY}_{size}.{NAME}.weights.h5"
        write_child(child, described, weights)
        entries[f"{FAMILY}_{size}"] = preset_entry(described, weights, evaluation["children"][size])
    supernet, front = files / f"cifar.{NAME}.safetensors", files / f"cifar.{NAME}.front.safetensors"
    metadata = write_supernet(trained, supernet)
    points = write_front(trained, data, workdir, front)
    write_json(
        files / "supernets.json",
        {NAME: {"weights": file_entry(supernet), "front": file_entry(front)}},
    )
    write_json(root / "bignas_tf" / "zoo" / f"{FAMILY}.json", entries)
    card = root / "zoo" / "cards" / "BigNASCifar.md"
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text(_card(entries, metadata, evaluation, arguments.command), encoding="utf-8")
    size = sum(file.stat().st_size for file in files.iterdir()) / 1e6
    print(f"{len(entries)} models, a supernet and {points} points of its front: {size:.1f} MB")


if __name__ == "__main__":
    main()
