"""Initial weights that a seed gives on every Keras backend alike."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops as K

_STREAM = 0x77656967  # one key word of Philox; the other is the seed


@keras.saving.register_keras_serializable(package="bignas_tf")
class FanOutScaling(keras.initializers.Initializer):
    """Random kernels of variance `scale / fan_out`, drawn by NumPy.

    Keras draws with its backend's generator, so that one seed gives other weights on another
    backend.

    Args:
        seed: int in [0, 2**64).
        scale: float, positive.
        distribution: "normal" or "uniform".

    Reference:
        Tan and Le, "EfficientNet", ICML 2019: normal, scale 2, for convolutions and uniform,
        scale 1/3, for the classifier, in its published code.
    """

    def __init__(self, seed: int, scale: float, distribution: str):
        self.seed = seed
        self.scale = scale
        self.distribution = distribution

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        fan_out = int(np.prod(shape[:-2])) * shape[-1]
        count = int(np.prod(shape))
        # Raw output: NumPy keeps it between versions, which it does not promise of Generator.
        raw = np.random.Philox(key=np.array([self.seed, _STREAM], np.uint64)).random_raw(2 * count)
        first, second = ((raw >> np.uint64(11)) * 2.0**-53).reshape(2, count)
        if self.distribution == "normal":  # Box and Muller's transform
            values = np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)
        else:
            values = np.sqrt(3) * (2 * first - 1)
        values *= np.sqrt(self.scale / fan_out)
        return K.convert_to_tensor(values.reshape(shape), dtype or keras.backend.floatx())

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed, "scale": self.scale, "distribution": self.distribution}
