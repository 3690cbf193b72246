"""Data order and augmentation: small arrays of draws, and NumPy that applies them.

The draws of an epoch are made for all examples at once and indexed by example. They depend on
(seed, epoch, example) only, never on the batch size, the worker or the step of a restart. Only
which example mixup adds to another is a matter of their batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from bignas_tf.checks import is_int, is_number
from bignas_tf.data.crops import draw_crops
from bignas_tf.data.errors import DataError
from bignas_tf.data.images import in_parallel
from bignas_tf.data.mixup import beta_256ths, mix
from bignas_tf.data.operation_policies import KINDS, NONE, draw_operations
from bignas_tf.data.operations import operate_all
from bignas_tf.data.streams import Stream, raw, unit
from bignas_tf.data.views import DrawnView

FILLS = ("reflect", "constant")


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order in which an epoch visits its examples.

    Args:
        n: int, number of examples.
        seed: int in [0, 2**64).
        epoch: int, 0 or more.

    Returns:
        int64 `(n,)`, a permutation of 0..n-1.
    """
    return np.argsort(raw(Stream.ORDER, n, seed=seed, epoch=epoch), kind="stable")


@dataclasses.dataclass(frozen=True)
class AugmentationPolicy:
    """What is done to training images: crop, flip, operations, cutout, then mixup.

    The default does nothing.

    Args:
        flip: whether to mirror left and right with probability 1/2.
        shift: int, 0 or more pixels: the image is padded by `shift` on every side and a crop of
            its own size is taken anywhere.
        fill: what the padding holds: 'reflect' (mirrors about the border pixel, which is not
            repeated) or 'constant' (`value`).
        value: int in 0..255, for constant padding, cutout and what operations bring in from
            outside the image.
        cutout: int, side in pixels of the square set to `value` (0: none). Its centre is anywhere
            in the image, so a part of it may lie outside.
        mixup: float in [0, 1], alpha (0: none): image i of a batch keeps a share from
            Beta(alpha, alpha) of itself, the rest is image batch - 1 - i. The labels have to be
            mixed alike: `bignas_tf.training.losses.mixed_targets`.
        crop: float in [0, 1], the least share of its area that Inception's crop, of shapes from
            3:4 to 4:3, leaves of an image (0: none); 0.08 is the published one. It is cut from
            the image as it is stored and resized (bicubic, antialiased). Not with `shift`.
        operations: 'none', 'autoaugment' (the ImageNet policy of its paper), 'autoaugment_v0'
            (that of EfficientNet's code, with the ranges of that code) or 'randaugment'.
        layers: int, at least 1, operations that an image gets from RandAugment.
        magnitude: float in [0, 10], of RandAugment's operations.

    Raises:
        DataError: if an argument is out of its range.

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; further ones in
        `bignas_tf.data.crops` and `bignas_tf.data.operation_policies`.
    """

    flip: bool = False
    shift: int = 0
    fill: str = "reflect"
    value: int = 0
    cutout: int = 0
    mixup: float = 0.0
    crop: float = 0.0
    operations: str = "none"
    layers: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise DataError(f"`flip` must be True or False. Received: {self.flip!r}")
        for name in ("shift", "cutout"):
            if not _is_int(getattr(self, name), 0, 2**15):
                raise DataError(
                    f"`{name}` must be an integer of pixels in 0..32768. "
                    f"Received: {getattr(self, name)!r}"
                )
        if self.fill not in FILLS:
            raise DataError(f"`fill` must be one of {list(FILLS)}. Received: {self.fill!r}")
        if not _is_int(self.value, 0, 255):
            raise DataError(f"`value` must be an integer in 0..255. Received: {self.value!r}")
        for name, most in (("mixup", 1), ("crop", 1), ("magnitude", 10)):
            number = getattr(self, name)
            if not (is_number(number) and 0 <= number <= most):
                raise DataError(f"`{name}` must be a number in [0, {most}]. Received: {number!r}")
        if self.crop and self.shift:
            raise DataError(f"`shift` must be 0 where there is a `crop`. Received: {self.shift}")
        if self.operations not in KINDS:
            raise DataError(
                f"`operations` must be one of {list(KINDS)}. Received: {self.operations!r}"
            )
        if not _is_int(self.layers, 1, 2**7):
            raise DataError(f"`layers` must be an integer in 1..128. Received: {self.layers!r}")

    @property
    def on_host(self) -> bool:
        """Whether Pillow has to compute it, an accelerator cannot."""
        return bool(self.crop) or self.operations != NONE

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> AugmentationPolicy:
        """Builds a policy from its fields, of JSON; absent ones take their defaults.

        Raises:
            DataError: if a field is unknown or out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(fields) - set(known)):
            raise DataError(f"Augmentation fields must be among {known}. Received: {unknown}")
        return cls(**fields)

    def draw(self, n: int, seed: int, epoch: int) -> dict[str, np.ndarray]:
        """Draws everything random about one epoch.

        Each kind has its own stream: turning one on does not change the others.

        Args:
            n: int, number of examples.
            seed: int in [0, 2**64).
            epoch: int, 0 or more.

        Returns:
            Only what the policy uses: 'offsets' int32 `(n, 2)` in -shift..shift (down, right);
            'flips' bool `(n,)`; 'cutouts' float32 `(n, 2)`, multiples of 2**-24 in [0, 1), the
            centre as a fraction of height and width; 'shares' int32 `(n,)` in 0..256, 256ths that
            an image keeps of itself; 'crops' as of `draw_crops`; 'operations' and 'values' as of
            `draw_operations`.
        """
        draws = {}
        if self.shift:
            values = unit(raw(Stream.SHIFT, 2 * n, seed=seed, epoch=epoch)).reshape(n, 2)
            spread = np.floor(values * (2 * self.shift + 1)).astype(np.int32)
            draws["offsets"] = spread - np.int32(self.shift)
        if self.flip:
            draws["flips"] = unit(raw(Stream.FLIP, n, seed=seed, epoch=epoch)) < 0.5
        if self.cutout:
            values = raw(Stream.CUTOUT, 2 * n, seed=seed, epoch=epoch) >> np.uint64(40)
            # 24 bits fit float32's mantissa: no fraction rounds up to 1.
            draws["cutouts"] = (values * 2.0**-24).astype(np.float32).reshape(n, 2)
        if self.mixup:
            draws["shares"] = beta_256ths(
                unit(raw(Stream.MIXUP, n, seed=seed, epoch=epoch)), self.mixup
            )
        if self.crop:
            draws["crops"] = draw_crops(n, seed, epoch)
        if self.operations != NONE:
            draws |= draw_operations(
                self.operations,
                n,
                seed=seed,
                epoch=epoch,
                layers=self.layers,
                magnitude=self.magnitude,
            )
        return draws

    def draw_names(self) -> tuple[str, ...]:
        """Returns the keys of `draw`'s arrays."""
        names = {"shift": "offsets", "flip": "flips", "cutout": "cutouts", "mixup": "shares"}
        found = [name for field, name in names.items() if getattr(self, field)]
        found += ["crops"] if self.crop else []
        return (*found, *(["operations", "values"] if self.operations != NONE else []))

    def device_draw_names(self) -> tuple[str, ...]:
        """Returns the keys of the arrays that a step on a device needs, of labels mixed too."""
        if self.on_host:
            return ("shares",) if self.mixup else ()
        return self.draw_names()

    def views(self, draws: Mapping[str, np.ndarray]) -> list[DrawnView] | None:
        """What `Split.read` has to do itself, before images are of one size.

        Args:
            draws: the rows of `draw`'s arrays of the images to read.

        Returns:
            A view for each image, with its crop, flip and operations; None without `crop`.
        """
        if not self.crop:
            return None
        return [
            DrawnView(
                crop=draws["crops"][row],
                least_area=self.crop,
                flip=self.flip and bool(draws["flips"][row]),
                operations=self._operations_of(draws, row),
                fill=self.value,
            )
            for row in range(len(draws["crops"]))
        ]

    def _operations_of(
        self, draws: Mapping[str, np.ndarray], row: int
    ) -> tuple[tuple[int, float], ...]:
        if self.operations == NONE:
            return ()
        return tuple(
            zip(*(draws[name][row].tolist() for name in ("operations", "values")), strict=True)
        )

    def apply(self, images: np.ndarray, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Augments a batch.

        Args:
            images: uint8 `(batch, height, width, channels)`; not changed. With `crop` read with
                `views`, so that crop, flip and operations are done.
            draws: the batch's rows of `draw`'s arrays, in the order of `images`.

        Returns:
            uint8 of the same shape; `images` itself if the policy does nothing.

        Raises:
            DataError: if `check` refuses them.
        """
        self.check(images.shape, draws)
        if not self.crop:
            if self.shift or self.flip:
                images = self._move(images, draws)
            if self.operations != NONE:
                images = self._operate(images, draws)
        if self.cutout:
            images = self._cut(images, draws["cutouts"])
        if self.mixup:
            images = mix(images, draws["shares"])
        return images

    def check(self, shape: tuple[int, ...], draws: Mapping[str, Any]) -> None:
        """Refuses what the policy cannot be applied to.

        Args:
            shape: (batch, height, width, channels).
            draws: the batch's rows of `draw`'s arrays, of any array type.

        Raises:
            DataError: if a draw is missing or has another number of rows, or if `check_size`
                refuses them.
        """
        for name in self.draw_names():
            if len(draws.get(name, ())) != shape[0]:
                raise DataError(
                    f"`draws['{name}']` must have one row for each of {shape[0]} images. "
                    f"Received: {len(draws.get(name, ()))}"
                )
        self.check_size(*shape[1:3])

    def check_size(self, height: int, width: int) -> None:
        """Refuses images of a size, in pixels, that the policy cannot be applied to.

        Raises:
            DataError: if `shift` reaches across the image with fill 'reflect'.
        """
        side = min(height, width)
        if self.fill == "reflect" and self.shift and self.shift >= side:
            raise DataError(
                f"`shift` with fill 'reflect' must be less than the image's side, "
                f"{side} pixels. Received: {self.shift}"
            )

    def _move(self, images: np.ndarray, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """Crop and flip as one gather: every output pixel names its source."""
        if not self.shift:
            images = images.copy()
            images[draws["flips"]] = images[draws["flips"], :, ::-1]
            return images
        batch, height, width, channels = images.shape
        rows = np.broadcast_to(np.arange(height), (batch, height))
        columns = np.broadcast_to(np.arange(width), (batch, width))
        if self.flip:
            columns = np.where(draws["flips"][:, None], columns[:, ::-1], columns)
        rows = rows + draws["offsets"][:, :1]
        columns = columns + draws["offsets"][:, 1:]
        outside = None
        if self.fill == "reflect":
            rows, columns = _reflect(rows, height), _reflect(columns, width)
        else:
            outside = _outside(rows, height)[:, :, None] | _outside(columns, width)[:, None, :]
            rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        first = np.arange(batch)[:, None] * height + rows
        pixels = images.reshape(-1, channels)
        moved = pixels.take(first[:, :, None] * width + columns[:, None, :], axis=0)
        if outside is not None:
            moved[outside] = self.value
        return moved

    def _operate(self, images: np.ndarray, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        changed = np.empty_like(images)

        def change(row: int) -> None:
            pixels = images[row]
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            image = operate_all(image, self._operations_of(draws, row), self.value)
            changed[row] = np.asarray(image).reshape(pixels.shape)

        in_parallel(change, len(images))
        return changed

    def _cut(self, images: np.ndarray, centres: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:3]
        corner = np.floor(centres.astype(np.float64) * [height, width]) - self.cutout // 2
        rows = np.arange(height) - corner[:, :1]
        columns = np.arange(width) - corner[:, 1:]
        inside = ~_outside(rows, self.cutout)[:, :, None] & ~_outside(columns, self.cutout)[:, None]
        return np.where(inside[..., None], np.uint8(self.value), images)


def _is_int(value: Any, low: int, high: int) -> bool:
    return is_int(value, low) and value <= high


def _outside(index: np.ndarray, size: int) -> np.ndarray:
    return (index < 0) | (index >= size)


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    index = np.abs(index)
    return np.where(index >= size, 2 * (size - 1) - index, index)
