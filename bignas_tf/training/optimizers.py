"""The two optimizers of BigNAS runs, built from the plain dict a recipe holds.

Neither decays weights: L2 belongs to the biggest child's loss, which Keras's
decoupled `weight_decay` is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from bignas_tf.checks import require, require_choice, require_rate

_DEFAULTS: dict[str, dict[str, Any]] = {
    "rmsprop": {"rho": 0.9, "momentum": 0.9, "epsilon": 1e-3},
    "sgd": {"momentum": 0.9, "nesterov": True},
}


@keras.saving.register_keras_serializable(package="bignas_tf")
class RMSPropTF1(keras.optimizers.RMSprop):
    """RMSProp whose mean squares start at 1, as in TensorFlow 1.

    Per weight, with gradient `g`:

        mean_square = rho * mean_square + (1 - rho) * g**2
        velocity    = momentum * velocity + rate * g / sqrt(mean_square + epsilon)
        weight      = weight - velocity

    Keras starts `mean_square` at 0. The first quotient is then about
    `1 / sqrt(1 - rho)` for any gradient well above `sqrt(epsilon)`: at rate 0.256
    every such weight moves by 0.81.

    Args:
        learning_rate: float or `LearningRateSchedule`.
        rho: float, decay of the mean squares, 0 to 1.
        momentum: float, 0 to 1.
        epsilon: float, added under the square root.
        **kwargs: other arguments of `keras.optimizers.RMSprop`.

    Reference:
        Tan and Le, "EfficientNet", ICML 2019, section 5.2, for `rho` and `momentum`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.256,
        rho: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, rho=rho, momentum=momentum, epsilon=epsilon, **kwargs
        )

    def add_optimizer_variables(
        self, trainable_variables: Any, name: Any, initializer: Any = "zeros"
    ) -> Any:
        # "velocity" is Keras's name for the mean square. Assigning ones after `build` would
        # run again in every step if `build` happened inside a traced function.
        if name == "velocity":
            initializer = "ones"
        return super().add_optimizer_variables(trainable_variables, name, initializer)


def build_optimizer(
    config: Mapping[str, Any], learning_rate: Any, ema: float = 0.0
) -> keras.optimizers.Optimizer:
    """Builds the optimizer that a recipe describes.

    Args:
        config: `{"kind": "rmsprop", "rho": 0.9, "momentum": 0.9, "epsilon": 1e-3}` or
            `{"kind": "sgd", "momentum": 0.9, "nesterov": True}`. All but `kind` may be
            left out; these are the defaults.
        learning_rate: float or `LearningRateSchedule`.
        ema: decay of a moving average of the weights that the optimizer keeps; 0 for none.

    Returns:
        A Keras optimizer that has no variables for weights yet.

    Raises:
        ValueError: on an unknown kind or key, or a value out of range.
    """
    kind: Any = config.get("kind")
    require_choice("kind", kind, tuple(_DEFAULTS))
    given = {key: value for key, value in config.items() if key != "kind"}
    unknown = sorted(set(given) - set(_DEFAULTS[kind]))
    require(
        not unknown, f"{kind} optimizer", f"given keys among {sorted(_DEFAULTS[kind])}", unknown
    )
    options = {**_DEFAULTS[kind], **given}
    for key in {"rho", "momentum"} & set(options):
        require_rate(key, options[key])
    if kind == "rmsprop":
        require(options["epsilon"] > 0, "epsilon", "positive", options["epsilon"])
    # Keras refuses an int where it documents a float.
    options["momentum"] = float(options["momentum"])
    require_rate("ema", ema)
    if ema:
        options |= {"use_ema": True, "ema_momentum": float(ema)}
    if isinstance(learning_rate, int):
        learning_rate = float(learning_rate)
    if kind == "sgd":
        return keras.optimizers.SGD(learning_rate, **options)
    return RMSPropTF1(learning_rate, **options)
