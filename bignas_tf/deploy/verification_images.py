"""Real images to check and calibrate converted files with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from bignas_tf.data.images import SUFFIXES, is_image, turn_upright
from bignas_tf.optional import installing

_MODES = {1: "L", 3: "RGB"}


def real_images(
    shape: tuple[int, int, int],
    *,
    count: int,
    input_range: tuple[float, float] = (-1.0, 1.0),
    folder: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Images of a folder, or such as come with scikit-learn.

    Args:
        shape: `(height, width, channels)`, 1 or 3 channels.
        count: int, how many at most.
        input_range: the values of black and white.
        folder: folder of images, taken in the order of their names, subfolders
            included, each upright as its EXIF says. Without one: handwritten
            digits for 1 channel, crops of two photographs for 3.

    Returns:
        `(images, height, width, channels)`, float32, at least one image.

    Raises:
        ValueError: if an argument is out of range, or the folder holds no image
            or one that cannot be read.
        ModuleNotFoundError: if no folder is given and scikit-learn is not installed.
    """
    height, width, channels = shape
    if channels not in _MODES:
        raise ValueError(f"`shape` must have 1 or 3 channels. Received: {shape}")
    black, white = input_range
    if not black < white:
        raise ValueError(f"`input_range` must be increasing. Received: {input_range}")
    if count < 1:
        raise ValueError(f"`count` must be at least 1. Received: {count}")
    if folder is not None:
        pictures = _folder(Path(folder), count)
    elif channels == 1:
        pictures = _digits(count)
    else:
        pictures = _crops(count)
    resized = [
        np.asarray(
            picture.convert(_MODES[channels]).resize((width, height), Image.Resampling.BICUBIC)
        )
        for picture in pictures
    ]
    unit = np.stack(resized).reshape(-1, *shape).astype(np.float32) / 255
    return unit * np.float32(white - black) + np.float32(black)


def _folder(folder: Path, count: int) -> Iterable[Image.Image]:
    if not folder.is_dir():
        raise ValueError(f"`images` must be a folder. Received: {folder}")
    paths = sorted(path for path in folder.rglob("*") if is_image(path.name))
    if not paths:
        raise ValueError(
            f"`images` must be a folder with images in it, {list(SUFFIXES)}. Received: {folder}"
        )
    # Evenly through the folder: the first names are often all of one class.
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    for index in chosen:
        try:
            with Image.open(paths[index]) as image:
                turn_upright(image)
                yield image.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"not an image that can be read. Received: {paths[index]}") from error


def _digits(count: int) -> Iterable[Image.Image]:
    digits = _sklearn_datasets().load_digits().images[:count]  # (images, 8, 8), 0 to 16
    for digit in digits:
        yield Image.fromarray(np.round(digit * (255 / 16)).astype(np.uint8))


def _crops(count: int) -> Iterable[Image.Image]:
    """Square crops of many sizes and places, the same ones in every run."""
    photographs = [
        Image.fromarray(photograph)
        for photograph in _sklearn_datasets().load_sample_images().images
    ]
    generator = np.random.Generator(np.random.Philox(0))
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        side = int(min(photograph.size) * generator.uniform(0.25, 1.0))
        left, top = (int(generator.integers(0, size - side + 1)) for size in photograph.size)
        yield photograph.crop((left, top, left + side, top + side))


def _sklearn_datasets() -> Any:
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "without a folder of images, scikit-learn's are used; name a folder, or "
            f"{installing('digits')}"
        ) from error
    return datasets
