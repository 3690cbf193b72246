"""The kinds of quantization: one row per kind."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from bignas_tf.deploy.verification import Tolerance


class Quantization(str, enum.Enum):
    """What a TFLite file stores and computes in.

    Attributes:
        FLOAT32: nothing quantized.
        FLOAT16: weights stored in half precision, computation in float.
        DYNAMIC: weights in int8, activations quantized while running.
        INT8: weights, activations, input and output in int8.
        INT8_FLOAT_IO: the same between a float input and a float output.
        INT16X8: weights in int8, activations in int16, float input and output.
        QAT_INT8: as INT8, with the ranges that quantization-aware training learned: the
            model must carry quantization nodes.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC = "dynamic"
    INT8 = "int8"
    INT8_FLOAT_IO = "int8_float_io"
    INT16X8 = "int16x8"
    QAT_INT8 = "qat_int8"

    @classmethod
    def parse(cls, value: Quantization | str) -> Quantization:
        """Finds a member by its value.

        Args:
            value: a member, or its value.

        Returns:
            The member.

        Raises:
            ValueError: if there is none; names those there are.
        """
        try:
            return cls(value)
        except ValueError:
            allowed = ", ".join(kind.value for kind in cls)
            raise ValueError(
                f"`quantization` must be one of {allowed}. Received: {value!r}"
            ) from None


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How one kind of quantization is asked of the converter, and held to account.

    Attributes:
        tolerance: what the outputs may differ by.
        optimize: bool, whether the converter may quantize at all.
        weights: name of a `tf.DType` for the weights, or None for the converter's choice.
        calibrated: bool, whether activations need representative images.
        trained: bool, whether the model must carry quantization nodes already.
        operations: name of a `tf.lite.OpsSet`.
        interfaces: names of the `tf.DType`s that input and output may have, the default
            first.
    """

    tolerance: Tolerance
    optimize: bool = True
    weights: str | None = None
    calibrated: bool = False
    trained: bool = False
    operations: str = "TFLITE_BUILTINS"
    interfaces: tuple[str, ...] = ("float32",)

    def interface(self, io: str | None) -> str:
        """The type of input and output that was asked for, or the default.

        Raises:
            ValueError: if the scheme does not offer it.
        """
        if io is not None and io not in self.interfaces:
            raise ValueError(
                f"`io` must be one of {', '.join(self.interfaces)} for this quantization. "
                f"Received: {io!r}"
            )
        return io or self.interfaces[0]


_WHOLE_NUMBERS = Tolerance(max_difference=1.0, mean_difference=0.1, agreement=0.9, tie=0.1)

# Float32 must be the same network up to the order of additions. Quantized files are held to
# the top class; their limits on differences only catch what is broken.
SCHEMES: Mapping[Quantization, Scheme] = {
    Quantization.FLOAT32: Scheme(
        Tolerance(max_difference=1e-4, mean_difference=1e-4, agreement=1.0, tie=1e-4),
        optimize=False,
    ),
    Quantization.FLOAT16: Scheme(
        Tolerance(max_difference=0.05, mean_difference=0.01, agreement=0.99, tie=0.01),
        weights="float16",
    ),
    Quantization.DYNAMIC: Scheme(
        Tolerance(max_difference=0.5, mean_difference=0.05, agreement=0.95, tie=0.05),
    ),
    Quantization.INT8: Scheme(
        _WHOLE_NUMBERS,
        calibrated=True,
        operations="TFLITE_BUILTINS_INT8",
        interfaces=("int8", "uint8"),
    ),
    Quantization.INT8_FLOAT_IO: Scheme(
        _WHOLE_NUMBERS,
        calibrated=True,
        operations="TFLITE_BUILTINS_INT8",
    ),
    Quantization.INT16X8: Scheme(
        Tolerance(max_difference=0.5, mean_difference=0.05, agreement=0.95, tie=0.05),
        calibrated=True,
        operations="EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
    ),
    Quantization.QAT_INT8: Scheme(
        _WHOLE_NUMBERS,
        trained=True,
        interfaces=("int8", "uint8", "float32"),
    ),
}
# Those that any finished model can be converted to.
POST_TRAINING = tuple(kind for kind, scheme in SCHEMES.items() if not scheme.trained)
