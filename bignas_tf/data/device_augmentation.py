"""`AugmentationPolicy.apply` on a device, in JAX: the same bytes from the same draws.

Nothing else in `bignas_tf.data` imports JAX.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from bignas_tf.data.augmentation import AugmentationPolicy
from bignas_tf.data.errors import DataError


def augment(
    policy: AugmentationPolicy, images: jax.Array, draws: Mapping[str, jax.Array]
) -> jax.Array:
    """Augments a batch; a part of a jitted step, or `jax.jit(augment, static_argnums=0)`.

    Args:
        policy: the augmentation, static: what it does not use is not compiled.
        images: uint8 `(batch, height, width, channels)`, sides below 2**19 pixels.
        draws: the batch's rows of `policy.draw`'s arrays, in the order of `images`.

    Returns:
        uint8 of the same shape, byte for byte that of `policy.apply`.

    Raises:
        DataError: if `policy.check` refuses them, or only a host can apply the policy.
    """
    policy.check(images.shape, draws)
    if policy.on_host:
        raise DataError(f"`policy` must have no crop and no operations. Received: {policy}")
    if policy.shift or policy.flip:
        images = _move(policy, images, draws)
    if policy.cutout:
        images = _cut(policy, images, draws["cutouts"])
    if policy.mixup:
        images = _mix(images, draws["shares"])
    return images


def _move(
    policy: AugmentationPolicy, images: jax.Array, draws: Mapping[str, jax.Array]
) -> jax.Array:
    """Crop and flip as one gather: every output pixel names its source."""
    batch, height, width, _ = images.shape
    rows = jnp.broadcast_to(jnp.arange(height, dtype=jnp.int32), (batch, height))
    columns = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (batch, width))
    if policy.flip:
        columns = jnp.where(draws["flips"][:, None], width - 1 - columns, columns)
    if policy.shift:
        rows = rows + draws["offsets"][:, :1]
        columns = columns + draws["offsets"][:, 1:]
    outside = None
    if policy.shift and policy.fill == "reflect":
        rows, columns = _reflect(rows, height), _reflect(columns, width)
    elif policy.shift:
        outside = _outside(rows, height)[:, :, None] | _outside(columns, width)[:, None, :]
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    # Image by image under vmap: a gather with the batch as one of its indices would make devices
    # that share a batch exchange all of it.
    moved = jax.vmap(_take)(images, rows, columns)
    return moved if outside is None else jnp.where(outside[..., None], _byte(policy.value), moved)


def _take(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return image.at[rows[:, None], columns[None, :]].get(mode="promise_in_bounds")


def _cut(policy: AugmentationPolicy, images: jax.Array, centres: jax.Array) -> jax.Array:
    """Cutout in integers: the NumPy form needs float64, which is rarely there on a device."""
    height, width = images.shape[1:3]
    sides = jnp.array([height, width], jnp.int32)
    fraction = (centres * 2.0**24).astype(jnp.int32)  # exact: multiples of 2**-24 below 1
    # (fraction * sides) >> 24 in two halves of 12 bits: the product would not fit 32 bits.
    high, low = fraction >> 12, fraction & 0xFFF
    corner = ((high * sides + ((low * sides) >> 12)) >> 12) - policy.cutout // 2
    rows = jnp.arange(height, dtype=jnp.int32) - corner[:, :1]
    columns = jnp.arange(width, dtype=jnp.int32) - corner[:, 1:]
    inside = ~_outside(rows, policy.cutout)[:, :, None]
    inside &= ~_outside(columns, policy.cutout)[:, None, :]
    return jnp.where(inside[..., None], _byte(policy.value), images)


def _mix(images: jax.Array, shares: jax.Array) -> jax.Array:
    keep = shares[:, None, None, None]
    whole = images.astype(jnp.int32)
    return ((keep * whole + (256 - keep) * whole[::-1] + 128) >> 8).astype(jnp.uint8)


def _byte(value: int) -> jax.Array:
    return jnp.asarray(value, jnp.uint8)


def _outside(index: jax.Array, size: int) -> jax.Array:
    return (index < 0) | (index >= size)


def _reflect(index: jax.Array, size: int) -> jax.Array:
    index = jnp.abs(index)
    return jnp.where(index >= size, 2 * (size - 1) - index, index)
