"""A regression for blocks that a latency table does not have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bignas_tf import cost
from bignas_tf.ops import BatchNorm, Conv, Dense, DepthwiseConv, Dropout, shapes
from bignas_tf.optional import require_package
from bignas_tf.spec import NetworkSpec

LEAST = 20  # blocks to fit to
TELLING = 0.1  # of the overhead; what is left of a time after it is noise below this
FOLDS = 5
FLOAT32_BYTES = 4
FEATURES = (
    "pointwise_macs", "convolution_macs", "depthwise_macs", "dense_macs", "weight_bytes",
    "convolved_bytes", "depthwise_bytes", "elementwise_bytes", "operators",
)  # fmt: skip


def features(spec: NetworkSpec) -> np.ndarray:
    """What the time of a block depends on, float64 `(len(FEATURES),)`.

    MACs by kind of operator, bytes of weights, bytes that operators of a kind read and write,
    and the number of operators; all in millions but the last. Batch norm is folded.
    """
    total = dict.fromkeys(FEATURES, 0.0)
    sizes = {name: math.prod(shape) for name, shape in shapes(spec.ops(), spec.input_shape).items()}
    costs = {op.name: op for op in cost.profile(spec).ops}
    for op in spec.ops():
        if isinstance(op, (BatchNorm, Dropout)):
            continue
        kind, moved = None, "elementwise_bytes"
        if isinstance(op, DepthwiseConv):
            kind, moved = "depthwise_macs", "depthwise_bytes"
        elif isinstance(op, Conv):
            kind = "pointwise_macs" if op.kernel_size == 1 else "convolution_macs"
            moved = "convolved_bytes"
        elif isinstance(op, Dense):
            kind = "dense_macs"
        if kind:
            total[kind] += costs[op.name].macs / 1e6
            total["weight_bytes"] += FLOAT32_BYTES * costs[op.name].params / 1e6
        touched = sizes[op.name] + sum(sizes[name] for name in op.inputs)
        total[moved] += FLOAT32_BYTES * touched / 1e6
        total["operators"] += 1
    return np.array([total[name] for name in FEATURES])


@dataclasses.dataclass(frozen=True)
class BlockModel:
    """A fitted regression.

    Attributes:
        kind: "linear", a sum of the features with weights of at least 0, or "boosted", the
            same times what gradient boosting makes of the rest.
        error: median relative error on blocks that were held out of the fit, in turn.
        worst: the same, but that 90 % of them stay below.
        mean: the same, their mean.
        bias: the mean with signs; above 0 where the regression predicts too much.
        left_out: how many blocks were too short to tell anything, and are in none of this.
    """

    kind: str
    error: float
    worst: float
    mean: float
    bias: float
    left_out: int
    _fitted: Any = dataclasses.field(repr=False)

    def predict(self, spec: NetworkSpec) -> float:
        """Milliseconds of a block."""
        return float(self._fitted(features(spec)[None])[0])


def require_regression() -> None:
    """Requires what `fit` needs.

    Raises:
        ModuleNotFoundError: without scikit-learn.
    """
    require_package("sklearn", "search", "The regression of a latency table")


def fit(
    specs: Sequence[NetworkSpec], times: Sequence[float], overhead: float = 0.0, seed: int = 0
) -> BlockModel | None:
    """Fits the kind of regression that does better on held-out blocks.

    Args:
        specs: blocks, each a network of its own.
        times: their milliseconds, the overhead taken off. Those of less than `TELLING` times
            the overhead are left out.
        overhead: milliseconds that were taken off; 0 or more. Errors of measurement are taken
            to be a share of a block's time and this together.
        seed: of the folds and the boosting.

    Returns:
        The regression; None for fewer than `LEAST` blocks.

    Raises:
        ModuleNotFoundError: as `require_regression`, for as many blocks.
    """
    kept = [i for i, time in enumerate(times) if time > TELLING * overhead]
    if len(kept) < LEAST:
        return None
    require_regression()
    from sklearn.model_selection import KFold

    x = np.array([features(specs[i]) for i in kept])
    y = np.array([times[i] for i in kept], np.float64)
    models = []
    for kind, fitter in (("linear", _linear), ("boosted", _boosted)):
        off = np.zeros(len(y))
        for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(x):
            off[test] = fitter(x[train], y[train], overhead, seed)(x[test]) / y[test] - 1
        errors = np.abs(off)
        model = BlockModel(
            kind=kind,
            error=float(np.median(errors)),
            worst=float(np.percentile(errors, 90)),
            mean=float(errors.mean()),
            bias=float(off.mean()),
            left_out=len(times) - len(kept),
            _fitted=fitter(x, y, overhead, seed),
        )
        models.append(model)
    return min(models, key=lambda model: model.error)


def _linear(x: np.ndarray, y: np.ndarray, overhead: float, seed: int) -> Any:
    from sklearn.linear_model import LinearRegression

    del seed
    scale = np.maximum(x.max(axis=0), 1e-12)
    # Relative errors count, small blocks as much as big ones; but a block that takes less than
    # calling a file is known no better than that call.
    noise = y + overhead
    line = LinearRegression(positive=True, fit_intercept=False)
    line.fit(x / scale / noise[:, None], y / noise)
    return lambda given: np.maximum((given / scale) @ line.coef_, y.min() / 2)


def _boosted(x: np.ndarray, y: np.ndarray, overhead: float, seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    line = _linear(x, y, overhead, seed)
    rest = GradientBoostingRegressor(random_state=seed)
    rest.fit(x, np.log(y / line(x)), sample_weight=y / (y + overhead))
    return lambda given: line(given) * np.exp(rest.predict(given))
