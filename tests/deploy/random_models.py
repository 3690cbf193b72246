"""Children for files whose content matters and whose accuracy does not."""

from __future__ import annotations

import numpy as np


def random_model(spec):
    """Every weight has a value of its own, the statistics of batch norm too."""
    from bignas_tf.child import build_child

    model = build_child(spec, seed=0)
    rng = np.random.Generator(np.random.Philox(0))
    # Kernels have random values already, of a scale that lets activations neither grow nor
    # vanish: biases would round to the same zeros in int8, and share their bytes.
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif "kernel" not in variable.name:
            variable.assign(rng.normal(size=variable.shape))
    return model
