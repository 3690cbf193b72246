"""Is batch norm folded into the convolutions of a converted file?

A batch norm that was not folded runs as a multiplication and an addition. Counting both, and
knowing how many the network's own ops explain, tells.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

from bignas_tf import ops
from bignas_tf.deploy.verification import VerificationError
from bignas_tf.spec import NetworkSpec

# The converter may write a difference as a sum and a quotient as a product.
_SAME = {"MUL": ("MUL", "DIV"), "ADD": ("ADD", "SUB", "ADD_N")}
_SAME_IN_ONNX = {
    "MUL": ("Mul", "Div", "BatchNormalization"),
    "ADD": ("Add", "Sub", "Sum", "BatchNormalization"),
}
_LINEAR = (ops.Conv, ops.DepthwiseConv, ops.Dense)


def explained(
    network: Iterable[ops.Op],
    *,
    rescaled: bool = False,
    rounded: bool = False,
    composed: bool = False,
) -> dict[str, int]:
    """Multiplications and additions that remain when every batch norm that can be is folded.

    A batch norm folds into a convolution or dense layer whose output nothing else reads.

    Args:
        network: its primitive ops.
        rescaled: bool, whether a rescaling of the pixels comes first.
        rounded: bool, whether training rounded every activation: the addition of a hard
            sigmoid then does not go into the bias before it.
        composed: bool, whether a hard swish is x * relu6(x + 3) / 6, no operator of its own.

    Returns:
        `{"MUL": count, "ADD": count}`.
    """
    network = list(network)
    makers = {op.name: op for op in network}
    readers = collections.Counter(name for op in network for name in op.inputs)

    def folds(op: ops.Op) -> bool:
        """Whether a product or sum of `op`'s input and a constant goes into a kernel or bias."""
        name = op.inputs[0]
        maker = makers.get(name)
        if readers[name] > 1:
            return False
        return isinstance(maker, _LINEAR) or (isinstance(maker, ops.BatchNorm) and folds(maker))

    products = sums = int(rescaled)
    for op in network:
        if isinstance(op, ops.Activation):
            # A hard sigmoid is relu6(x + 3) / 6.
            products += op.function in ("swish", "hard_sigmoid")
            sums += op.function == "hard_sigmoid" and (rounded or not folds(op))
            if composed and op.function == "hard_swish":
                products, sums = products + 2, sums + 1
        elif isinstance(op, ops.Multiply):
            products += 1
        elif isinstance(op, (ops.Add, ops.Subtract)):
            sums += len(op.inputs) - 1
        elif isinstance(op, ops.BatchNorm) and not folds(op):
            products, sums = products + 1, sums + 1
    return {"MUL": products, "ADD": sums}


def check_folding(
    operators: Mapping[str, int],
    spec: NetworkSpec,
    *,
    rescaled: bool = False,
    rounded: bool = False,
    onnx: bool = False,
) -> dict[str, dict[str, int]]:
    """Requires a file to multiply and add no more often than its network says.

    Args:
        operators: of the file, name -> how many.
        spec: the network.
        rescaled: as of `explained`.
        rounded: as of `explained`.
        onnx: bool, whether it is an ONNX file. TFLite's file otherwise.

    Returns:
        For `"MUL"` and `"ADD"` how many were `found` and how many are `explained`.

    Raises:
        VerificationError: if there are more.
    """
    # In ONNX no sum of an activation goes into a bias, and a product of matrices has none.
    limits = explained(spec.ops(), rescaled=rescaled, rounded=rounded or onnx, composed=onnx)
    limits["ADD"] += operators.get("MatMul", 0)
    counts = {
        name: {"found": sum(operators.get(kind, 0) for kind in kinds), "explained": limits[name]}
        for name, kinds in (_SAME_IN_ONNX if onnx else _SAME).items()
    }
    file = "ONNX" if onnx else "TFLite"
    for name, count in counts.items():
        if count["found"] > count["explained"]:
            raise VerificationError(
                f"batch norm is not folded: the {file} file has {count['found']} {name} "
                f"operators, the ops of its network explain {count['explained']}"
            )
    return counts


def spec_of(model: Any, metadata: Mapping[str, Any]) -> NetworkSpec | None:
    """The network that a model was built from, None if nobody says.

    Args:
        model: a Keras model; `build_child` leaves its spec on it.
        metadata: of the model, with the spec's JSON under `spec`.

    Returns:
        The network; also None where the JSON has blocks that nobody has registered.
    """
    if "spec" in metadata:
        try:
            return NetworkSpec.from_json(metadata["spec"])
        except ValueError:
            return None
    spec = getattr(model, "spec", None)
    return spec if isinstance(spec, NetworkSpec) else None
