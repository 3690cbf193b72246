"""The operations of AutoAugment and RandAugment: one number each, computed by Pillow.

Pillow's own functions are what the published policies were searched with, they release the
interpreter lock, and only the operations that were drawn are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image, ImageEnhance, ImageOps

IDENTITY = "identity"


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: int) -> Image.Image:
    """`matrix` takes a point of the result to its source: x, y -> ax + by + c, dx + ey + f."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.NEAREST,
        fillcolor=_colour(image, fill),
    )


def _colour(image: Image.Image, fill: int) -> Any:
    return fill if image.mode == "L" else (fill, fill, fill)


def _rotate(image: Image.Image, degrees: float, fill: int) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=_colour(image, fill))


def _solarize_add(image: Image.Image, addition: float, fill: int) -> Image.Image:
    table = [min(255, i + round(addition)) if i < 128 else i for i in range(256)]
    return image.point(table * len(image.getbands()))


def _enhanced(kind: Callable[[Image.Image], Any]) -> Callable[..., Image.Image]:
    return lambda image, factor, fill: kind(image).enhance(factor)


# By name: a function of the image, the operation's number and the grey of what comes from outside.
_FUNCTIONS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    IDENTITY: lambda image, value, fill: image,
    "auto_contrast": lambda image, value, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, value, fill: ImageOps.equalize(image),
    "invert": lambda image, value, fill: ImageOps.invert(image),
    "rotate": _rotate,
    "posterize": lambda image, bits, fill: ImageOps.posterize(image, round(bits)),
    "solarize": lambda image, threshold, fill: ImageOps.solarize(image, round(threshold)),
    "solarize_add": _solarize_add,
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": lambda image, slope, fill: _affine(image, (1, slope, 0, 0, 1, 0), fill),
    "shear_y": lambda image, slope, fill: _affine(image, (1, 0, 0, slope, 1, 0), fill),
    "translate_x": lambda image, share, fill: _affine(
        image, (1, 0, share * image.width, 0, 1, 0), fill
    ),
    "translate_y": lambda image, share, fill: _affine(
        image, (1, 0, 0, 0, 1, share * image.height), fill
    ),
    "translate_y_pixels": lambda image, pixels, fill: _affine(image, (1, 0, 0, 0, 1, pixels), fill),
}
OPERATIONS = tuple(_FUNCTIONS)


def operate(image: Image.Image, operation: int, value: float, fill: int = 0) -> Image.Image:
    """Applies one operation.

    Args:
        image: of mode 'L' or 'RGB'.
        operation: int, position in `OPERATIONS`.
        value: degrees counterclockwise for 'rotate'; bits that stay, 1 to 8, for 'posterize';
            the threshold, 0 to 256, from which 'solarize' inverts; what 'solarize_add' adds to
            values below 128; the factor of 'color', 'contrast', 'brightness' and 'sharpness', of
            which 1 changes nothing and 0 leaves grey, the mean grey, black and a smoothed image;
            pixels that a row (column) is shifted against the one before for 'shear_x'
            ('shear_y'); the share of the width (height) that 'translate_x' ('translate_y')
            shifts towards 0, and the pixels of 'translate_y_pixels'. Unused by the others.
        fill: int in 0..255, grey of pixels from outside the image.

    Returns:
        An image of the same mode and size; geometry takes the nearest pixel.
    """
    return _FUNCTIONS[OPERATIONS[operation]](image, value, fill)


def operate_all(
    image: Image.Image, operations: Iterable[tuple[int, float]], fill: int
) -> Image.Image:
    """Applies operations, each with its value, one after the other."""
    for operation, value in operations:
        image = operate(image, operation, value, fill)
    return image
