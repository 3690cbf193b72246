"""What one image shows of itself in one epoch, drawn beforehand."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from bignas_tf.data.crops import Box, crop_box
from bignas_tf.data.operations import operate_all


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnView:
    """A crop, a flip and operations.

    Args:
        crop: uint16 `(24,)`, the image's row of `draw_crops`.
        least_area: float in (0, 1], of `crop_box`.
        flip: whether to mirror left and right.
        operations: positions in `OPERATIONS` with their values.
        fill: int in 0..255, of `operate`.
    """

    crop: np.ndarray
    least_area: float
    flip: bool
    operations: tuple[tuple[int, float], ...]
    fill: int

    def box(self, width: int, height: int) -> Box:
        """Returns left, top, right and bottom of the part that is shown, in pixels."""
        return crop_box(width, height, self.crop, self.least_area)

    def edit(self, image: Image.Image) -> Image.Image:
        """Returns the part, resized before, as it is trained on."""
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return operate_all(image, self.operations, self.fill)
