"""How far a search is and what it has found, on a terminal and in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from bignas_tf.search.screening import sentence

LOG_SECONDS = 30.0  # between two lines where nobody looks on
Clock = Callable[[], float]


class Pace:
    """How long the rest of a search takes, if evaluations take as long as their MACs say.

    Time counts from the first result on: before it networks are loaded and traced, and
    workers are waited for.

    Args:
        clock: seconds since some moment.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None  # seconds, MMACs of the first results
        self._last = (0.0, 0.0)

    def note(self, done: float) -> None:
        """Takes the MMACs of all that this process has seen evaluated so far."""
        if done > self._last[1]:
            self._last = self._clock(), done
            self._first = self._first or self._last

    def seconds(self, left: float) -> float | None:
        """Seconds until all is evaluated; None while there is one result or none.

        Args:
            left: MMACs of what is still to be evaluated.
        """
        if self._first is None or self._first == self._last:
            return None
        (begun, first), (at, done) = self._first, self._last
        rest = left * (at - begun) / (done - first)
        return max(0.0, rest - (self._clock() - at))


class SearchBar(tqdm):
    """A bar of evaluations with the time left, the phase and the best of each budget.

    Where the stream is no terminal each state of the bar is a line of its own, and there is
    one in half a minute.

    Args:
        planned: evaluations of the whole search.
        known: of them, those that are done.
        shown: bool, whether to show anything.
        clock: of the time left, seconds since some moment.
    """

    def __init__(
        self, planned: int, known: int, shown: bool = True, clock: Clock = time.monotonic
    ) -> None:
        live = sys.stderr.isatty()
        self._told = 0
        self._pace = Pace(clock)
        self._left = 0.0
        super().__init__(
            total=planned,
            initial=known,
            unit="child",
            disable=not shown,
            dynamic_ncols=live,
            file=None if live else _Lines(sys.stderr),  # type: ignore[arg-type]
            mininterval=0.1 if live else LOG_SECONDS,
            miniters=0,  # the time left changes between two results
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}{postfix}]",
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        """What `bar_format` may name: tqdm's own and `left`, which weighs evaluations."""
        seconds = self._pace.seconds(self._left)
        left = "?" if seconds is None else tqdm.format_interval(seconds)
        return {**super().format_dict, "left": left}

    def show(
        self,
        phase: str,
        known: int,
        planned: int,
        mmacs: tuple[float, float],
        selected: Sequence[Mapping[str, Any]],
        screenings: Sequence[Mapping[str, Any]],
        note: str = "",
    ) -> None:
        """Shows a new state.

        Args:
            phase: of the search.
            known: evaluations that are done.
            planned: evaluations of the whole search.
            mmacs: of what this process has seen evaluated, and of what is left.
            selected: the best so far, as `select` returns it.
            screenings: what the predictor did; rounds whose results are all there are told
                once each.
            note: what else to say, in a few words.
        """
        self.total = planned
        done, self._left = mmacs
        self._pace.note(done)
        self.set_description(phase, refresh=False)
        best = [f"{entry['name']} {100 * entry['accuracy']:.2f} %" for entry in selected]
        self.set_postfix_str(", ".join([note] * bool(note) + best), refresh=False)
        reports = [report for report in screenings if report["fresh_tau"] is not None]
        for report in reports[self._told :]:
            self.write(sentence(report), file=sys.stderr)
        self._told = len(reports)
        self.update(known - self.n)


class _Lines:
    """A stream that gets a line where a terminal's would be written over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        return self._stream.write(f"{line}\n") if line else 0

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
