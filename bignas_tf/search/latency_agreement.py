"""How well latency is predicted: predictions beside measurements of the same networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bignas_tf.search.predictor import kendall_tau

# How `benchmarks/latency_prediction.py` measures, and in words.
WAYS = {"table": "as in tables", "benchmark": "as `bignas benchmark` does"}


def agreement(
    predicted: Sequence[float] | np.ndarray, sessions: Sequence[Sequence[float]]
) -> dict[str, float]:
    """How well a prediction does, and how well it could.

    Args:
        predicted: milliseconds of networks.
        sessions: measurements of the same networks in the same order, one or two.

    Returns:
        Against the mean of the sessions: `mean_error` and `largest_error`, relative, `bias`,
        the mean relative difference, and `kendall_tau`. Of two sessions also
        `noise_ceiling_tau` and `noise_error` between them: no prediction can be expected to
        agree better with a measurement than a second one does.

    Raises:
        ModuleNotFoundError: without SciPy, which scikit-learn brings.
    """
    guess, measured = np.asarray(predicted), np.mean(sessions, axis=0)
    errors = np.abs(guess / measured - 1)
    found = {
        "mean_error": float(errors.mean()),
        "largest_error": float(errors.max()),
        "bias": float((guess / measured - 1).mean()),
        "kendall_tau": kendall_tau(guess, measured),
    }
    if len(sessions) == 1:
        return found
    one, other = map(np.asarray, sessions)
    return found | {
        "noise_ceiling_tau": kendall_tau(one, other),
        "noise_error": float(np.abs(one / other - 1).mean()),
    }


def in_words(found: dict[str, float]) -> str:
    """What `agreement` found, such as `mean error 3.1 %, bias ...`."""
    words = (
        f"mean error {found['mean_error']:.1%}, bias {found['bias']:+.1%}, Kendall's tau "
        f"{found['kendall_tau']:.3f}"
    )
    if "noise_ceiling_tau" not in found:
        return words
    return (
        f"{words} (two measurements: {found['noise_ceiling_tau']:.3f}, {found['noise_error']:.1%})"
    )
