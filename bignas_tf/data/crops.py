"""Inception's random crop: a part of random area and shape, chosen from the image's size alone."""

from __future__ import annotations

import math

import numpy as np

from bignas_tf.data.streams import Stream, raw

ASPECTS = (3 / 4, 4 / 3)  # width over height
ATTEMPTS = 10
_NUMBERS = 2 * ATTEMPTS + 4  # of 16 bits, in whole words of 64; the last two are not used

Box = tuple[int, int, int, int]


def draw_crops(n: int, seed: int, epoch: int) -> np.ndarray:
    """Draws what `crop_box` needs: uint16 `(n, 24)`, uniform."""
    words = raw(Stream.CROP, n * _NUMBERS // 4, seed=seed, epoch=epoch)
    return words.astype("<u8", copy=False).view("<u2").reshape(n, _NUMBERS)


def crop_box(width: int, height: int, draw: np.ndarray, least_area: float) -> Box:
    """Chooses a crop.

    The area is uniform in [least_area, 1] of the image's, the logarithm of width over height in
    that of 3/4 to 4/3, and the place uniform. The first of ten attempts that fits into the image
    is taken; after them the largest centred part whose shape is in that range.

    Args:
        width: int, of the image, in pixels, below 65,536.
        height: int, alike.
        draw: uint16 `(24,)`, the image's row of `draw_crops`.
        least_area: float in (0, 1].

    Returns:
        (left, top, right, bottom), pixels within the image.

    Reference:
        Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """
    numbers = draw.tolist()
    low, high = map(math.log, ASPECTS)
    for attempt in range(ATTEMPTS):
        share, shape = ((x + 0.5) / 65536 for x in numbers[2 * attempt : 2 * attempt + 2])
        area = width * height * (least_area + (1 - least_area) * share)
        aspect = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = numbers[2 * ATTEMPTS] * (width - w + 1) >> 16
            top = numbers[2 * ATTEMPTS + 1] * (height - h + 1) >> 16
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * ASPECTS[1])))
    h = min(height, max(1, round(width / ASPECTS[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
