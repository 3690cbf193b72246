"""Makes large photographs of unequal sizes out of small images, to try the recipe `photos` on.

Each image is enlarged to a random size and lies somewhere on a larger, blurred copy of itself, as
a subject does before its background: between 640 and 2560 pixels on the longer side, in portrait
or landscape, three in ten stored sideways with an EXIF orientation, as phones do. The classes get
unequal numbers, from all of --train down to half of it.

python benchmarks/large_photographs.py --images=PATH --output=runs/photographs
bignas train --recipe=photos --data=folder:runs/photographs --workdir=runs/photos --set=epochs=30
"""

import pathlib

import numpy as np
import tqdm
from absl import app, flags
from PIL import Image, ImageFilter

_IMAGES = flags.DEFINE_string("images", None, "train/CLASS/* and test/CLASS/*.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to make.", required=True)
_TRAIN = flags.DEFINE_integer("train", 200, "Images of the largest class.", lower_bound=2)
_TEST = flags.DEFINE_integer("test", 50, "Test images of each class.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of sizes and places.", lower_bound=0)

LONGER = (640, 2560)  # pixels
ASPECTS = (1.0, 16 / 9)
SUBJECT = (0.6, 1.0)  # of the shorter side
# EXIF's orientation, and how the stored pixels are turned from what is seen.
TURNED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
UPRIGHT, ORIENTATION = 1, 0x0112


def photograph(small: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, int]:
    """The pixels to store, and the EXIF orientation that says how to turn them."""
    longer = int(rng.integers(LONGER[0], LONGER[1] + 1))
    shorter = round(longer / rng.uniform(*ASPECTS))
    width, height = (longer, shorter) if rng.random() < 0.5 else (shorter, longer)
    # Blurred while it is small, which costs nothing.
    blurred = small.filter(ImageFilter.GaussianBlur(4))
    ground = blurred.resize((width, height), Image.Resampling.BICUBIC)
    side = round(shorter * rng.uniform(*SUBJECT))
    left, top = (int(rng.integers(size - side + 1)) for size in (width, height))
    ground.paste(small.resize((side, side), Image.Resampling.LANCZOS), (left, top))
    if rng.random() >= 0.3:
        return ground, UPRIGHT
    orientation = int(rng.choice(list(TURNED)))
    return ground.transpose(TURNED[orientation]), orientation


def _counts(split: str, classes: int) -> list[int]:
    """Images of each class."""
    if split == "test":
        return [_TEST.value] * classes
    return np.linspace(_TRAIN.value, _TRAIN.value / 2, classes).round().astype(int).tolist()


def main(argv: list[str]) -> None:
    """Writes train/CLASS/*.jpg and test/CLASS/*.jpg."""
    if len(argv) > 1:
        raise app.UsageError(f"There are flags only. Received: {argv[1:]}")
    output, images = pathlib.Path(_OUTPUT.value), pathlib.Path(_IMAGES.value)
    if output.exists():
        raise app.UsageError(f"--output must not exist. Received: {output}")
    chosen = []
    for split in ("train", "test"):
        folders = sorted(path for path in (images / split).iterdir() if path.is_dir())
        for folder, count in zip(folders, _counts(split, len(folders)), strict=True):
            files = sorted(folder.iterdir())[:count]
            if len(files) < count:
                raise app.UsageError(f"{folder} must hold {count} images. Received: {len(files)}")
            chosen += files
    rng = np.random.default_rng(_SEED.value)
    for path in tqdm.tqdm(chosen, unit="image"):
        with Image.open(path) as small:
            pixels, orientation = photograph(small.convert("RGB"), rng)
        target = output / path.relative_to(images).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        pixels.save(target, quality=90, exif=exif)


if __name__ == "__main__":
    app.run(main)
