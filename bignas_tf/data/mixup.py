"""Mixup of images, and how it draws the shares."""

from __future__ import annotations

import numpy as np


def mix(images: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Adds to each image its share of the batch reversed.

    Integers only, so that no backend rounds differently: 256 * 255 + 128 fits 16 bits.

    Args:
        images: uint8 `(batch, height, width, channels)`; not changed.
        shares: int32 `(batch,)` in 0..256, 256ths that an image keeps of itself.
    """
    keep = shares.astype(np.uint16)[:, None, None, None]
    mixed = images * keep
    mixed += images[::-1] * (np.uint16(256) - keep)
    mixed += np.uint16(128)
    mixed >>= np.uint16(8)
    return mixed.astype(np.uint8)


def beta_256ths(uniform: np.ndarray, alpha: float) -> np.ndarray:
    """Turns uniform numbers into Beta(alpha, alpha), rounded to 256ths: int32 0..256.

    Rounding leaves 257 values, so the inverse of the distribution function is a search among 256
    borders: exact for any alpha, one number per draw and nothing to reject.
    """
    lower = (np.arange(128) + 0.5) / 256
    # For 0 < x <= 1/2 the integral of (t * (1 - t))**(alpha - 1) from 0 to x is x**alpha / alpha
    # times `series`: the binomial series of (1 - t)**(alpha - 1), integrated term by term. No term
    # is negative and each is less than half of the one before. Divided by the integral to 1/2,
    # where a symmetric distribution reaches 1/2, it is the distribution function.
    x = np.append(lower, 0.5)
    coefficient, series = np.ones_like(x), np.ones_like(x)
    for k in range(1, 64):
        coefficient *= (k - alpha) / k * x
        series += coefficient * (alpha / (alpha + k))
    integral = x**alpha * series
    below = 0.5 * integral[:-1] / integral[-1]
    borders = np.concatenate([below, 1 - below[::-1]])
    return np.searchsorted(borders, uniform, side="right").astype(np.int32)
