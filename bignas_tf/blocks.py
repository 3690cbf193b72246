"""Blocks: the parts that networks are written in.

A new kind of block is one frozen dataclass with an `ops` method, registered under the
`type` that it has in JSON. Nothing else in the package needs to learn of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from bignas_tf.checks import (
    from_json,
    is_number,
    require,
    require_choice,
    require_int,
    require_rate,
)
from bignas_tf.ops import ACTIVATIONS, OpWriter, Tensor

SHORTCUTS = ("none", "identity", "projection", "projection_always")

_BLOCK_TYPES: dict[str, type[Block]] = {}


def make_divisible(value: float, divisor: int = 8) -> int:
    """Rounds `value` to a multiple of `divisor`, never below 90 % of `value`.

    Reference:
        Howard et al., "MobileNetV2", CVPR 2018 (reference implementation).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def register_block(type_name: str) -> Callable[[type], type]:
    """Class decorator: makes a `Block` known under `type_name` in JSON."""

    def register(cls: type) -> type:
        if type_name in _BLOCK_TYPES:
            raise ValueError(f"A block type '{type_name}' exists already")
        cls.type = type_name  # type: ignore[attr-defined]
        _BLOCK_TYPES[type_name] = cls
        return cls

    return register


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A named part of a network.

    Fields hold values that can be hashed: lowered blocks are cached.

    Attributes:
        arity: of the class: how many inputs it reads; None for any number.
        name: unique in its network; prefix of its ops' names.
        inputs: names of the earlier blocks (or `"input"`) whose outputs it reads; empty
            means the block before it.
    """

    type: ClassVar[str]
    arity: ClassVar[int | None] = 1
    name: str
    inputs: tuple[str, ...] = ()

    def __post_init__(self):
        require(
            isinstance(self.name, str) and self.name.isidentifier(), "name", "an identifier",
            self.name,
        )  # fmt: skip
        ok = isinstance(self.inputs, tuple) and all(isinstance(i, str) for i in self.inputs)
        require(ok, "inputs", "a tuple of block names", self.inputs)

    def ops(self, writer: OpWriter, *inputs: Tensor) -> Tensor:
        """Writes the block's ops and returns its output."""
        raise TypeError(f"{type(self).__name__} does not define ops()")

    def to_json(self) -> dict[str, Any]:
        """The block as a JSON object, defaults left out."""
        data: dict[str, Any] = {"type": self.type, "name": self.name}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default or field.name == "name":
                continue
            nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
            data[field.name] = dataclasses.asdict(value) if nested else value
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Block:
        """Builds a block of any registered type.

        Raises:
            ValueError: for an unknown type, unknown or missing keys, impossible values.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"A block must be a JSON object. Received: {data!r}")
        fields = dict(data)
        kind = fields.pop("type", None)
        require_choice("type", kind, tuple(sorted(_BLOCK_TYPES)))
        return _BLOCK_TYPES[kind].parse(fields, f"Block '{data.get('name')}' of type '{kind}'")

    @classmethod
    def parse(cls, fields: dict[str, Any], what: str) -> Block:
        """Builds a block of this class from its JSON fields without `type`."""
        return from_json(cls, fields, what)


@register_block("conv")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvBlock(Block):
    """Convolution, batch norm, activation."""

    channels: int
    kernel_size: int = 3
    strides: int = 1
    groups: int = 1
    dilation: int = 1
    activation: str = "swish"

    def __post_init__(self):
        super().__post_init__()
        for argument in ("channels", "kernel_size", "strides", "groups", "dilation"):
            require_int(argument, getattr(self, argument))
        require_choice("activation", self.activation, ACTIVATIONS)
        ok = self.dilation == 1 or self.strides == 1
        require(ok, "dilation", f"1 where the stride is {self.strides}", self.dilation)

    def ops(self, writer: OpWriter, *inputs: Tensor) -> Tensor:
        x = writer.conv(
            "conv", inputs[0], self.channels, self.kernel_size,
            strides=self.strides, groups=self.groups, dilation=self.dilation,
        )  # fmt: skip
        return writer.activation("activation", writer.batch_norm("bn", x), self.activation)


@dataclasses.dataclass(frozen=True)
class SqueezeExcitation:
    """Squeeze-and-excitation of an `MBConvBlock`.

    Attributes:
        ratio: hidden width as a fraction of the reference width.
        relative_to: reference width: the block's "input" channels (EfficientNet) or its
            "expanded" channels (MobileNetV3).
        divisor: the hidden width is rounded to a multiple of it (`make_divisible`); with 1
            it is rounded down, to 1 at least, as EfficientNet does.
        activation: of the hidden units.
        gate: "sigmoid" or "hard_sigmoid".

    Reference:
        Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    ratio: float = 0.25
    relative_to: str = "input"
    divisor: int = 1
    activation: str = "swish"
    gate: str = "sigmoid"

    def __post_init__(self):
        ok = is_number(self.ratio) and self.ratio > 0
        require(ok, "se.ratio", "a positive number", self.ratio)
        require_choice("se.relative_to", self.relative_to, ("input", "expanded"))
        require_int("se.divisor", self.divisor)
        require_choice("se.activation", self.activation, ACTIVATIONS)
        require_choice("se.gate", self.gate, ("sigmoid", "hard_sigmoid"))

    def width(self, in_channels: int, expanded_channels: int) -> int:
        """Hidden units."""
        reference = in_channels if self.relative_to == "input" else expanded_channels
        hidden = reference * self.ratio
        return max(1, int(hidden)) if self.divisor == 1 else make_divisible(hidden, self.divisor)


@register_block("mbconv")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MBConvBlock(Block):
    """Inverted residual: expansion, depthwise convolution, optional SE, projection.

    Attributes:
        expand_ratio: expanded width over input width, rounded to a multiple of
            `expand_divisor`; 1 has no expanding convolution.
        expanded_channels: exact expanded width instead of `expand_ratio`; no expanding
            convolution where it equals the input width.
        shortcut: "none"; "identity", added where stride is 1 and widths are equal;
            "projection", an identity or average pooling where the stride is not 1 and a
            1x1 convolution where widths differ; "projection_always" writes the 1x1
            convolution even where widths are equal.

    Reference:
        Sandler et al., "MobileNetV2", CVPR 2018; Yu et al., "BigNAS", ECCV 2020,
        section 3.2 for the projected shortcut.
    """

    channels: int
    kernel_size: int = 3
    strides: int = 1
    expand_ratio: float | None = None
    expanded_channels: int | None = None
    expand_divisor: int = 8
    activation: str = "swish"
    se: SqueezeExcitation | None = None
    shortcut: str = "identity"

    def __post_init__(self):
        super().__post_init__()
        for argument in ("channels", "kernel_size", "strides", "expand_divisor"):
            require_int(argument, getattr(self, argument))
        require_choice("activation", self.activation, ACTIVATIONS)
        require_choice("shortcut", self.shortcut, SHORTCUTS)
        if (self.expand_ratio is None) == (self.expanded_channels is None):
            raise ValueError(
                "Exactly one of `expand_ratio` and `expanded_channels` must be given. "
                f"Received: {self.expand_ratio!r} and {self.expanded_channels!r}"
            )
        if self.expand_ratio is not None:
            ok = is_number(self.expand_ratio) and self.expand_ratio >= 1
            require(ok, "expand_ratio", "a number of at least 1", self.expand_ratio)
        else:
            require_int("expanded_channels", self.expanded_channels)
        require(
            self.se is None or isinstance(self.se, SqueezeExcitation),
            "se", "a SqueezeExcitation or None", self.se,
        )  # fmt: skip

    @classmethod
    def parse(cls, fields: dict[str, Any], what: str) -> Block:
        if fields.get("se") is not None:
            fields["se"] = from_json(SqueezeExcitation, fields["se"], f"`se` of {what}")
        return from_json(cls, fields, what)

    def expanded(self, in_channels: int) -> int:
        """Channels of the depthwise convolution for `in_channels` of input."""
        if self.expanded_channels is not None:
            return self.expanded_channels
        if self.expand_ratio is None or self.expand_ratio == 1:
            return in_channels
        return make_divisible(in_channels * self.expand_ratio, self.expand_divisor)

    def ops(self, writer: OpWriter, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        shortcut = self._shortcut(writer, x)
        expanded = self.expanded(x.channels)
        y = x
        if expanded != x.channels:
            y = writer.conv("expand_conv", y, expanded, 1)
            y = writer.batch_norm("expand_bn", y)
            y = writer.activation("expand_activation", y, self.activation)
        y = writer.depthwise("depthwise_conv", y, self.kernel_size, strides=self.strides)
        y = writer.batch_norm("depthwise_bn", y)
        y = writer.activation("depthwise_activation", y, self.activation)
        if self.se is not None:
            y = self._squeeze_excitation(writer, y, self.se, x.channels)
        y = writer.conv("project_conv", y, self.channels, 1)
        y = writer.batch_norm("project_bn", y, zero_gamma=shortcut is not None)
        return y if shortcut is None else writer.add("add", shortcut, y)

    def _squeeze_excitation(
        self, writer: OpWriter, x: Tensor, se: SqueezeExcitation, in_channels: int
    ) -> Tensor:
        hidden = se.width(in_channels, x.channels)
        y = writer.global_pool("se_pool", x, keepdims=True)
        y = writer.conv("se_reduce_conv", y, hidden, 1, use_bias=True)
        y = writer.activation("se_reduce_activation", y, se.activation)
        y = writer.conv("se_expand_conv", y, x.channels, 1, use_bias=True)
        y = writer.activation("se_gate", y, se.gate, gate=True)
        return writer.multiply("se_scale", x, y)

    def _shortcut(self, writer: OpWriter, x: Tensor) -> Tensor | None:
        same = self.strides == 1 and x.channels == self.channels
        if self.shortcut == "none" or (self.shortcut == "identity" and not same):
            return None
        if self.shortcut == "identity":
            return x
        if self.strides > 1:
            x = writer.pool("shortcut_pool", x, "average", self.strides, self.strides)
        if x.channels != self.channels or self.shortcut == "projection_always":
            x = writer.conv("shortcut_conv", x, self.channels, 1)
        return x


@register_block("head")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadBlock(Block):
    """1x1 convolution with batch norm (if `channels`), pooling, dropout, classifier."""

    channels: int | None = None
    activation: str = "swish"
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.channels is not None:
            require_int("channels", self.channels)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_rate("dropout", self.dropout)

    def ops(self, writer: OpWriter, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        if self.channels is not None:
            x = writer.batch_norm("bn", writer.conv("conv", x, self.channels, 1))
            x = writer.activation("activation", x, self.activation)
        writer.part = "top"
        x = writer.dropout("dropout", writer.global_pool("pool", x), self.dropout)
        return writer.dense("classifier", x, writer.classes)


@register_block("mobilenetv3_head")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV3HeadBlock(Block):
    """1x1 convolution with batch norm, pooling, hidden layer without it, classifier.

    Attributes:
        channels: of the convolution before pooling.
        features: units of the hidden layer after pooling.
        features_bias: whether the hidden layer has a bias.

    Reference:
        Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.1.
    """

    channels: int
    features: int
    features_bias: bool = True
    activation: str = "hard_swish"
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        require_int("channels", self.channels)
        require_int("features", self.features)
        require(isinstance(self.features_bias, bool), "features_bias", "a bool", self.features_bias)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_rate("dropout", self.dropout)

    def ops(self, writer: OpWriter, *inputs: Tensor) -> Tensor:
        x = writer.batch_norm("bn", writer.conv("conv", inputs[0], self.channels, 1))
        x = writer.activation("activation", x, self.activation)
        writer.part = "top"
        x = writer.global_pool("pool", x)
        x = writer.dense("features", x, self.features, use_bias=self.features_bias)
        x = writer.activation("features_activation", x, self.activation)
        x = writer.dropout("dropout", x, self.dropout)
        return writer.dense("classifier", x, writer.classes)
