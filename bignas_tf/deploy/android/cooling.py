"""Waiting until a device is as cool as it was."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

from bignas_tf.deploy.android.device import State

_POLL = 5.0  # seconds


@dataclasses.dataclass(frozen=True)
class Cooling:
    """When the next run may start.

    Attributes:
        pause: float, seconds between runs, whatever the temperature.
        limit: float, seconds of waiting after which it starts all the same.
        margin: float, degrees Celsius that the battery may be warmer than the reference.
    """

    pause: float = 5.0
    limit: float = 300.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ValueError(
                    f"`{field.name}` must be a number of at least 0. Received: {value}"
                )


def reference_of(row: Mapping[str, str]) -> State:
    """The state that `cooled` of a row was judged against; its governor is not kept.

    Args:
        row: of the CSV of a sweep.

    Raises:
        ValueError: if it is not numbers.
    """
    thermal, celsius = row["thermal_reference"], row["celsius_reference"]
    try:
        return State("", int(thermal) if thermal else None, float(celsius) if celsius else None)
    except ValueError:
        raise ValueError(
            "`csv` must have numbers, or nothing, in `thermal_reference` and "
            f"`celsius_reference`. Received: {thermal!r} and {celsius!r}"
        ) from None


def is_cool(state: State, reference: State, margin: float) -> bool:
    """Whether a device is neither throttled more nor warmer than it was.

    Args:
        state: now.
        reference: before the first measurement. What either does not tell is not judged.
        margin: degrees Celsius.
    """
    throttled = (
        state.thermal is not None
        and reference.thermal is not None
        and state.thermal > reference.thermal
    )
    warm = (
        state.celsius is not None
        and reference.celsius is not None
        and state.celsius > reference.celsius + margin
    )
    return not (throttled or warm)


def cool_down(
    read: Callable[[], State],
    reference: State,
    cooling: Cooling,
    sleep: Callable[[float], None],
) -> tuple[State, bool]:
    """Waits.

    Args:
        read: asks the device.
        reference: its state before the first measurement.
        cooling: how long.
        sleep: waits for seconds.

    Returns:
        The state at the end, and whether it is cool enough.
    """
    end = time.monotonic() + cooling.limit
    sleep(cooling.pause)
    while True:
        state = read()
        cool = is_cool(state, reference, cooling.margin)
        left = end - time.monotonic()
        if cool or left <= 0:
            return state, cool
        sleep(min(_POLL, left))
