"""What the kernels of a TFLite file hold, and how small the file becomes when compressed."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np

from bignas_tf.deploy.interpreter import load_interpreter

# Depthwise kernels are neither pruned nor clustered: they are counted only.
_KINDS = ("CONV_2D", "FULLY_CONNECTED")
_DEPTHWISE = "DEPTHWISE_CONV_2D"


@dataclasses.dataclass(frozen=True)
class FileWeights:
    """The kernels of a file.

    Attributes:
        bytes: of the file.
        deflated_bytes: of the file, compressed as in a zip archive at the highest level.
        weights: in the kernels of convolutions and dense layers.
        depthwise_weights: in those of depthwise convolutions, which the others leave out.
        sparsity: share of the weights that are zero.
        unique_values: the most different values that one kernel holds.
    """

    bytes: int
    deflated_bytes: int
    weights: int
    depthwise_weights: int
    sparsity: float
    unique_values: int

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.bytes / 1e3:.1f} kB, deflated {self.deflated_bytes / 1e3:.1f} kB; "
            f"{self.sparsity:.1%} of {self.weights} weights are zero, at most "
            f"{self.unique_values} values in a kernel "
            f"({self.depthwise_weights} depthwise weights not counted)"
        )


def file_kernels(path: Path, kinds: tuple[str, ...] = _KINDS) -> dict[str, np.ndarray]:
    """The constant kernels of a file's operators, as stored, by tensor name.

    Args:
        path: a `.tflite` file.
        kinds: operators whose second input is a kernel.
    """
    interpreter = load_interpreter(path, delegate="none")
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    indices = [
        int(operator["inputs"][1])
        for operator in interpreter._get_ops_details()
        if operator["op_name"] in kinds
    ]
    # Two kernels may have one name.
    return {f"{names[i]}#{i}": np.array(interpreter.get_tensor(i)) for i in indices}


def read_file_weights(path: Path) -> FileWeights:
    """Looks into a file.

    Args:
        path: a `.tflite` file with a convolution or a dense layer.
    """
    content = path.read_bytes()
    kernels = list(file_kernels(path).values())
    weights = sum(kernel.size for kernel in kernels)
    return FileWeights(
        bytes=len(content),
        deflated_bytes=len(zlib.compress(content, 9)),
        weights=weights,
        depthwise_weights=sum(k.size for k in file_kernels(path, (_DEPTHWISE,)).values()),
        sparsity=sum(int((kernel == 0).sum()) for kernel in kernels) / weights,
        unique_values=max(len(np.unique(kernel)) for kernel in kernels),
    )
