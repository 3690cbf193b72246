"""The spaces that come with the package, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from bignas_tf.blocks import SqueezeExcitation
from bignas_tf.checks import require, require_choice, require_int
from bignas_tf.spaces.genotype import Space
from bignas_tf.spaces.mbconv import MBConvSpace, Stage

SE = SqueezeExcitation()  # a quarter of the block's input channels, swish, sigmoid gate


def _steps(low: int, high: int, step: int = 8) -> tuple[int, ...]:
    return tuple(range(low, high + 1, step))


def _bignas() -> MBConvSpace:
    """Table 1 of the BigNAS paper; resolutions as public reproductions have them."""
    return MBConvSpace(
        name="bignas",
        resolution_choices=(192, 224, 256, 288, 320),
        training_resolutions=(192, 224, 288, 320),
        stem_widths=_steps(32, 40),
        stages=(
            Stage(_steps(16, 24), (1, 2), (3,), (1,), 1, SE),
            Stage(_steps(24, 32), (2, 3), (3,), (6,), 2, SE),
            Stage(_steps(40, 48), (2, 3), (3, 5), (6,), 2, SE),
            Stage(_steps(80, 88), (2, 3, 4), (3, 5), (6,), 2, SE),
            Stage(_steps(112, 128), (2, 3, 4, 5, 6), (3, 5), (6,), 1, SE),
            Stage(_steps(192, 216), (2, 3, 4, 5, 6), (3, 5), (6,), 2, SE),
            Stage(_steps(320, 352), (1, 2), (3, 5), (6,), 1, SE),
        ),
        head_widths=_steps(1280, 1408),
    )


def _attentivenas() -> MBConvSpace:
    """Wang et al., "AttentiveNAS", CVPR 2021, table 1."""
    se = SqueezeExcitation(
        relative_to="expanded", divisor=8, activation="relu", gate="hard_sigmoid"
    )
    expands = (4, 5, 6)
    return MBConvSpace(
        name="attentivenas",
        resolution_choices=(192, 224, 256, 288),
        stem_widths=(16, 24),
        stages=(
            Stage((16, 24), (1, 2), (3, 5), (1,), 1),
            Stage((24, 32), (3, 4, 5), (3, 5), expands, 2),
            Stage((32, 40), (3, 4, 5, 6), (3, 5), expands, 2, se),
            Stage((64, 72), (3, 4, 5, 6), (3, 5), expands, 2),
            Stage((112, 120, 128), (3, 4, 5, 6, 7, 8), (3, 5), expands, 1, se),
            Stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (3, 5), (6,), 2, se),
            Stage((216, 224), (1, 2), (3, 5), (6,), 1, se),
        ),
        head_widths=(1792, 1984),
        head_expand=6,
    )


def _cifar() -> MBConvSpace:
    """A BigNAS space for 32-pixel images: biggest 10 MMACs, smallest a quarter of it.

    Time on CPU follows memory traffic, so what runs at 32 and 16 pixels is kept thin.
    """
    return MBConvSpace(
        name="cifar",
        resolution_choices=(24, 28, 32),
        stem_widths=(16,),
        stem_strides=1,
        stages=(
            Stage((16,), (1,), (3,), (1,), 1, SE),
            Stage((24,), (1, 2), (3,), (2,), 2, SE),
            Stage((32, 40), (1, 2), (3, 5), (3,), 2, SE),
            Stage((56, 64), (1, 2), (3, 5), (3,), 1, SE),
            Stage((96, 104), (1, 2), (3, 5), (3,), 2, SE),
        ),
        head_widths=(256, 288),
        classes=10,
    )


def _cifar_small() -> MBConvSpace:
    """A space for 32-pixel images whose biggest child has 2.8 MMACs: many short runs."""
    return MBConvSpace(
        name="cifar_small",
        resolution_choices=(24, 28, 32),
        stem_widths=(8,),
        stem_strides=1,
        stages=(
            Stage((16,), (1, 2), (3,), (2,), 2, SE),
            Stage((24, 32), (1, 2), (3, 5), (3,), 2, SE),
            Stage((48, 56, 64), (1, 2), (3, 5), (3,), 2, SE),
        ),
        head_widths=(128, 160),
        classes=10,
    )


def _mobile() -> MBConvSpace:
    """A BigNAS space for photographs on phones and smaller devices: 13 to 96 MMACs."""
    return MBConvSpace(
        name="mobile",
        resolution_choices=(96, 128, 160),
        stem_widths=(16,),
        stages=(
            Stage((16,), (1,), (3,), (1,), 1, SE),
            Stage((24,), (1, 2), (3,), (4,), 2, SE),
            Stage((32, 40), (1, 2, 3), (3, 5), (4,), 2, SE),
            Stage((64, 72), (1, 2, 3), (3, 5), (4,), 2, SE),
            Stage((88, 96), (1, 2, 3), (3, 5), (4,), 1, SE),
            Stage((144, 160), (1, 2), (3, 5), (4,), 2, SE),
        ),
        head_widths=(480, 640),
    )


def _digits() -> MBConvSpace:
    """A BigNAS space for scikit-learn's 8-pixel digits, trained in a minute or two."""
    return MBConvSpace(
        name="digits",
        resolution_choices=(8, 10, 12),
        stem_widths=(8, 16),
        stem_strides=1,
        stages=(
            Stage((8, 16), (1, 2), (3,), (2,), 1, SE),
            Stage((24, 32), (1, 2, 3), (3, 5), (3,), 2, SE),
            Stage((40, 48, 56), (1, 2), (3, 5), (3,), 2, SE),
        ),
        head_widths=(96, 128),
        classes=10,
        input_channels=1,
    )


SPACES: dict[str, Callable[[], Space]] = {
    "attentivenas": _attentivenas,
    "bignas": _bignas,
    "cifar": _cifar,
    "cifar_small": _cifar_small,
    "digits": _digits,
    "mobile": _mobile,
}


_CLASSES: dict[str, type[Space]] = {MBConvSpace.__name__: MBConvSpace}


def get_space(name: str, classes: int | None = None) -> Space:
    """The space of that name, for another number of classes if given.

    Raises:
        ValueError: for an unknown name.
    """
    require_choice("space", name, tuple(SPACES))
    space = SPACES[name]()
    if classes is None:
        return space
    require_int("classes", classes)
    return dataclasses.replace(space, classes=classes)  # type: ignore[type-var]


def space_from_config(config: Mapping[str, Any]) -> Space:
    """Inverse of `Space.config`, also after a trip through JSON.

    Raises:
        ValueError: for a class of which no space is registered in this process.
    """
    name = config.get("class", MBConvSpace.__name__)  # early files have none
    require_choice("class of the space (register_space)", name, tuple(_CLASSES))
    return _CLASSES[name].from_config(config)


def register_space(space: Space) -> None:
    """Makes a space known by its name in this process, to recipes too, and its class to files.

    Raises:
        ValueError: for what is no dataclass derived from `Space`, or if its name or that of
            its class is taken by another.
    """
    ok = isinstance(space, Space) and dataclasses.is_dataclass(space)
    require(ok, "space", "an instance of a dataclass derived from Space", space)
    known = SPACES[space.name]() if space.name in SPACES else space
    require(known == space, "space", "one whose name is not taken by another", space.name)
    of_name = _CLASSES.setdefault(type(space).__name__, type(space))
    free = of_name is type(space)
    require(free, "space", "of a class whose name is not taken by another", type(space).__name__)
    SPACES[space.name] = lambda: space
