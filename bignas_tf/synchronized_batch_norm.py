"""Batch normalization by the statistics of the global batch, under tf.distribute.

Statistics are gathered and combined, so that they do not depend on how the batch is divided but
for rounding. TensorFlow refuses these collectives in a branch of `tf.cond`, and, where one runs
several times in a call of a function, with another shape each time: they are as wide as the
biggest child's, filled with zeros.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from bignas_tf.fused_batch_norm import column_sums


def replicas() -> int:
    """Replicas that run the present function in sync; 1 outside of `strategy.run`."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def _summed(values: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _gathered(values: Any) -> Any:
    """`(n,)` of every replica, `(replicas, n)`: a sum to which each adds a row of its own."""
    context = tf.distribute.get_replica_context()
    number = context.replica_id_in_sync_group
    own = tf.one_hot(number, context.num_replicas_in_sync, dtype=values.dtype)
    return _summed(own[:, None] * values[None])


def _filled(x: Any, width: int) -> Any:
    return tf.ensure_shape(tf.pad(x, [[0, width - tf.size(x)]]), [width])


def _global_moments(x: Any, width: int) -> tuple[Any, Any, Any]:
    """Count, mean and population variance per channel over the rows of all replicas.

    Reference:
        Chan et al., "Updating formulae and a pairwise algorithm for computing sample
        variances", 1979.
    """
    own = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), x.dtype)
    mean = column_sums(x) / own
    squares = column_sums(tf.math.squared_difference(x, mean))
    channels = tf.size(mean)
    found = _gathered(tf.concat([own[None], _filled(mean, width), _filled(squares, width)], axis=0))
    counts, means, squares = (
        part[:, :channels] for part in tf.split(found, [1, width, width], axis=1)
    )
    count = tf.reduce_sum(counts)
    mean = tf.reduce_sum(counts * means, axis=0) / count
    between = counts * tf.math.squared_difference(means, mean)
    variance = tf.reduce_sum(squares + between, axis=0) / count
    return count, mean, variance


def normalize_by_global_batch(x: Any, gamma: Any, beta: Any, epsilon: float, width: int) -> Any:
    """Batch normalization with the statistics of all replicas' rows.

    Args:
        x: `(batch, height, width, channels)`, the rows of this replica.
        gamma: `(channels,)`.
        beta: `(channels,)`.
        epsilon: added to the variance.
        width: most channels that this normalization ever has.

    Returns:
        A tensor of the shape of `x`.
    """

    @tf.custom_gradient
    def run(x: Any, gamma: Any, beta: Any) -> Any:
        count, mean, variance = _global_moments(x, width)
        inverse = tf.math.rsqrt(variance + epsilon)

        def gradient(dy: Any) -> Any:
            normalized = (x - mean) * inverse
            d_gamma, d_beta = column_sums(dy * normalized), column_sums(dy)
            sums = _summed(tf.concat([_filled(d_gamma, width), _filled(d_beta, width)], axis=0))
            along, constant = (
                part[: tf.size(d_beta)] for part in tf.split(sums / count, [width, width])
            )
            return gamma * inverse * (dy - constant - normalized * along), d_gamma, d_beta

        return (x - mean) * inverse * gamma + beta, gradient

    # Values, not variables: a custom gradient would have to name those.
    return run(x, tf.identity(gamma), tf.identity(beta))
