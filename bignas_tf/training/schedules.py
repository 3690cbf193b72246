"""Learning rates over optimizer steps: decay with a constant ending, and cosine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops as K
from keras.optimizers.schedules import LearningRateSchedule

from bignas_tf.checks import require, require_choice

# Keys of each kind and their defaults; None marks a key that must be given.
_KEYS: dict[str, dict[str, Any]] = {
    "exponential": {
        "initial": None,
        "rate": 0.97,
        "every_epochs": 2.4,
        "ending_fraction": 0.05,
        "warmup_epochs": 0.0,
        "staircase": False,
    },
    "exponential_to_ending": {
        "initial": None,
        "constant_from": 0.8,
        "ending_fraction": 0.05,
        "warmup_epochs": 0.0,
        "constant_ending": True,
    },
    "cosine": {"initial": None, "ending_fraction": 0.0, "warmup_epochs": 0.0},
}


@keras.saving.register_keras_serializable(package="bignas_tf")
class ExponentialDecayWithConstantEnding(LearningRateSchedule):
    """Linear warm-up, exponential decay, then a rate that stays.

    At step `t`, from 0:

        initial * t / warmup_steps                                    t < warmup_steps
        initial * max(decay_rate ** (t / decay_steps), ending_fraction)      otherwise

    Big children peak while small ones are under-trained; the constant ending lets
    the small ones catch up without the big ones overfitting. The decay counts from
    step 0, not from the end of the warm-up, as in the published EfficientNet
    training, so the length of the warm-up does not shift the rest of the run; the
    rate at the end of the warm-up is therefore slightly below `initial`.

    Args:
        initial_learning_rate: float, positive.
        decay_steps: float, positive: steps per factor of `decay_rate`.
        decay_rate: float, 0 < decay_rate <= 1.
        ending_fraction: float, 0 to 1: where the decay stops, in units of
            `initial_learning_rate`. 0 never stops it.
        warmup_steps: int or float, 0 or more.
        staircase: bool, whether `t / decay_steps` is rounded down.

    Call arguments:
        step: int, float or scalar tensor of either, 0 or more.

    Returns:
        Scalar tensor in Keras's float type.

    Raises:
        ValueError: if an argument is out of range.

    Reference:
        Yu et al., "BigNAS", ECCV 2020.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float = 0.97,
        ending_fraction: float = 0.05,
        warmup_steps: float = 0,
        staircase: bool = False,
    ) -> None:
        super().__init__()
        _check_common(initial_learning_rate, ending_fraction, warmup_steps)
        require(decay_steps > 0, "decay_steps", "positive", decay_steps)
        require(0 < decay_rate <= 1, "decay_rate", "in (0, 1]", decay_rate)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.ending_fraction = ending_fraction
        self.warmup_steps = warmup_steps
        self.staircase = staircase

    def __call__(self, step: Any) -> Any:
        dtype = keras.backend.floatx()
        step = K.cast(step, dtype)
        periods = step / K.cast(self.decay_steps, dtype)
        if self.staircase:
            periods = K.floor(periods)
        fraction = K.maximum(
            K.power(K.cast(self.decay_rate, dtype), periods),
            K.cast(self.ending_fraction, dtype),
        )
        if self.warmup_steps > 0:
            warmup = K.cast(self.warmup_steps, dtype)
            fraction = K.where(step < warmup, step / warmup, fraction)
        return K.cast(self.initial_learning_rate, dtype) * fraction

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "ending_fraction": self.ending_fraction,
            "warmup_steps": self.warmup_steps,
            "staircase": self.staircase,
        }


def cosine_decay(
    initial_learning_rate: float,
    decay_steps: float,
    warmup_steps: float = 0,
    ending_fraction: float = 0.0,
) -> LearningRateSchedule:
    """Keras's `CosineDecay`, with a linear warm-up from 0.

    Args:
        initial_learning_rate: float, positive: the rate at the end of the warm-up.
        decay_steps: float, positive: steps of the cosine, which starts when the
            warm-up ends. Afterwards the rate stays.
        warmup_steps: int or float, 0 or more.
        ending_fraction: float, 0 to 1: last rate / `initial_learning_rate`.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check_common(initial_learning_rate, ending_fraction, warmup_steps)
    require(decay_steps > 0, "decay_steps", "positive", decay_steps)
    cosine = keras.optimizers.schedules.CosineDecay
    if warmup_steps == 0:
        return cosine(float(initial_learning_rate), decay_steps, alpha=ending_fraction)
    return cosine(
        0.0,
        decay_steps,
        alpha=ending_fraction,
        warmup_target=float(initial_learning_rate),
        warmup_steps=warmup_steps,
    )


def build_schedule(
    config: Mapping[str, Any], steps_per_epoch: int, epochs: float
) -> LearningRateSchedule:
    """Builds the schedule that a recipe describes in epochs.

    | kind | keys (defaults) |
    |---|---|
    | `exponential` | `initial`, `rate` (0.97), `every_epochs` (2.4), `ending_fraction` (0.05), `warmup_epochs` (0), `staircase` (False) |
    | `exponential_to_ending` | `initial`, `constant_from` (0.8), `ending_fraction` (0.05), `warmup_epochs` (0), `constant_ending` (True) |
    | `cosine` | `initial`, `ending_fraction` (0), `warmup_epochs` (0) |

    `exponential_to_ending` sets the decay so that the ending rate is reached at the
    fraction `constant_from` of the run, for runs much shorter than the published one.
    With `constant_ending=False` it keeps decaying at the same pace. The cosine ends
    with the run.

    Args:
        config: `kind` and the keys above.
        steps_per_epoch: int, 1 or more: optimizer steps.
        epochs: int or float, positive: length of the run, warm-up included.

    Returns:
        A schedule over optimizer steps.

    Raises:
        ValueError: on an unknown kind or key, or a value out of range.
    """  # noqa: E501
    require(steps_per_epoch >= 1, "steps_per_epoch", "at least 1", steps_per_epoch)
    require(epochs > 0, "epochs", "positive", epochs)
    kind, options = _options(config)
    steps = steps_per_epoch * epochs
    initial, ending = options["initial"], options["ending_fraction"]
    warmup = options["warmup_epochs"] * steps_per_epoch
    if not warmup < steps:
        shorter = json.dumps({**config, "warmup_epochs": epochs / 10}, default=float)
        allowed = f"below `epochs`, which is {epochs}: set that higher, or `schedule` to {shorter}"
        require(False, "warmup_epochs", allowed, options["warmup_epochs"])
    if kind == "cosine":
        return cosine_decay(initial, steps - warmup, warmup, ending)
    if kind == "exponential":
        return ExponentialDecayWithConstantEnding(
            initial,
            decay_steps=options["every_epochs"] * steps_per_epoch,
            decay_rate=options["rate"],
            ending_fraction=ending,
            warmup_steps=warmup,
            staircase=options["staircase"],
        )
    require(0 < ending < 1, "ending_fraction", f"in (0, 1) for kind '{kind}'", ending)
    constant_from = options["constant_from"]
    require(0 < constant_from <= 1, "constant_from", "in (0, 1]", constant_from)
    return ExponentialDecayWithConstantEnding(
        initial,
        decay_steps=constant_from * steps,
        decay_rate=ending,
        ending_fraction=ending if options["constant_ending"] else 0.0,
        warmup_steps=warmup,
    )


def _options(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    kind: Any = config.get("kind")
    require_choice("kind", kind, tuple(_KEYS))
    given = {key: value for key, value in config.items() if key != "kind"}
    unknown = sorted(set(given) - set(_KEYS[kind]))
    require(not unknown, f"{kind} schedule", f"given keys among {sorted(_KEYS[kind])}", unknown)
    options = {**_KEYS[kind], **given}
    require(options["initial"] is not None, "initial", "given", dict(config))
    return kind, options


def _check_common(initial: float, ending_fraction: float, warmup_steps: float) -> None:
    require(initial > 0, "initial_learning_rate", "positive", initial)
    require(0 <= ending_fraction <= 1, "ending_fraction", "in [0, 1]", ending_fraction)
    require(warmup_steps >= 0, "warmup_steps", "0 or more", warmup_steps)
