"""Decoding with Pillow, which is exact, and the one rule for sizes."""

from __future__ import annotations

import concurrent.futures
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bignas_tf.data.errors import BrokenImageError, UnreadableImageError
from bignas_tf.machine import usable_cores

_PICTURES = (
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
# Some of them are read by newer versions of Pillow only.
SUFFIXES = tuple(suffix for suffix in _PICTURES if suffix in Image.registered_extensions())
EMPTY = "the file is empty"
PAUSES = (0.1, 1.0, 5.0)  # seconds before an image is read again


def is_image(name: str) -> bool:
    """Whether a file is one of the images of its folder: by its suffix, in any case, not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


class View(Protocol):
    """What one image shows of itself in one epoch."""

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of the part that is shown, in pixels."""

    def edit(self, image: Image.Image) -> Image.Image:
        """Returns the part, resized and of mode 'L' or 'RGB', with its other changes."""


def decode_image(
    path: str,
    image_size: int,
    channels: int,
    file: IO[bytes] | None = None,
    view: View | None = None,
) -> np.ndarray:
    """Decodes one image, upright; of an animation, the first frame.

    JPEG files are always decoded at their full size: what libjpeg offers as a faster reduced
    decoding (Pillow's `draft`) is not the image that was resized, and no crop of it.

    Args:
        path: the file, or the name for errors if `file` is given.
        image_size: int, height and width of the result.
        channels: 1 (luma) or 3 (RGB).
        file: binary stream to read instead of `path`.
        view: as of `fit`.

    Returns:
        uint8 `(image_size, image_size, channels)`.

    Raises:
        BrokenImageError: if the file is empty, truncated or not an image.
        MemoryError: if there is not enough for it, which says nothing about the file.
        UnreadableImageError: if it cannot be read.
    """
    if file is None:
        contents = persistently(Path(path).read_bytes, path)
        if not contents:
            raise BrokenImageError(path, EMPTY)
        file = io.BytesIO(contents)
    try:
        with Image.open(file) as image:
            turn_upright(image)
            return fit(image, image_size, channels, view)
    except MemoryError as error:
        raise MemoryError(f"Not enough memory to decode image '{path}'") from error
    except Exception as error:  # Pillow's plugins raise a dozen unrelated classes on bad bytes
        raise BrokenImageError(path, _reason(error)) from error


def turn_upright(image: Image.Image) -> None:
    """Turns or mirrors an image in place, as its EXIF orientation says that it is to be seen.

    Args:
        image: as it was opened; without that tag, or with EXIF that is broken, it stays as it is.
    """
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # of the EXIF, which many a camera and editor writes wrong
        return


def persistently(read: Callable[[], bytes], name: str) -> bytes:
    """Reads an image again where the system fails: a network's disk may be back in a moment.

    A file that is missing or not allowed to be read will be the same in a moment.

    Args:
        read: returns the encoded image.
        name: of the image, for errors.

    Raises:
        UnreadableImageError: if it fails for good.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except OSError as error:
            if pause is None or isinstance(error, (FileNotFoundError, PermissionError)):
                raise UnreadableImageError(name, error.strerror or str(error)) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or cut off within its header"
    return " ".join(str(error).split()) or repr(error)


def in_parallel(function: Callable[[int], Any], count: int) -> None:
    """Calls `function` with 0..count-1 in the threads of the pool.

    Raises:
        Exception: what the first of the calls that failed has raised.
    """
    for _ in _pool().map(function, range(count)):
        pass


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    """Threads are enough: Pillow releases the interpreter lock while it computes."""
    return concurrent.futures.ThreadPoolExecutor(usable_cores(), "bignas-decode")


def fit(image: Image.Image, image_size: int, channels: int, view: View | None = None) -> np.ndarray:
    """Converts any Pillow image to 8 bits, `channels` and a square of `image_size`.

    Args:
        image: of any mode but 'F'; 16-bit greys are scaled to 8 bits, alpha is dropped.
        image_size: int, pixels.
        channels: 1 or 3.
        view: its box is cut out, before anything else is computed, and resized to the square
            (bicubic, antialiased), then it edits that. None keeps the centre square: the shorter
            side becomes `image_size`.

    Returns:
        uint8 `(image_size, image_size, channels)`.

    Raises:
        ValueError: if the image's mode has no 8-bit form.
    """
    if view is None:
        image = _square(_eight_bits(image, channels), image_size)
    else:
        part = _eight_bits(image.crop(view.box(*image.size)), channels)
        image = view.edit(part.resize((image_size, image_size), Image.Resampling.BICUBIC))
    return np.asarray(image, np.uint8).reshape(image_size, image_size, channels)


def _eight_bits(image: Image.Image, channels: int) -> Image.Image:
    target = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        raise ValueError("floating-point pixels have no 8-bit scale")
    if image.mode.startswith("I"):  # Pillow clips these instead of scaling them
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # the palette may have an alpha, which RGB warns about
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")  # CMYK and others reach luma by way of RGB
    return image if image.mode == target else image.convert(target)


def _square(image: Image.Image, image_size: int) -> Image.Image:
    width, height = image.size
    short = min(width, height)
    if short == image_size:
        left, top = (width - short) // 2, (height - short) // 2
        return image.crop((left, top, left + short, top + short))
    # Pillow reads neighbours beyond the box, so this is resizing the whole and cropping,
    # without the whole.
    x, y = (width - short) / 2, (height - short) / 2
    return image.resize(
        (image_size, image_size), Image.Resampling.BICUBIC, box=(x, y, x + short, y + short)
    )
