"""How far a search is and what it has found, on a terminal and in a log."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from bignas_tf.search.screening import sentence

LOG_SECONDS = 30.0  # between two lines where nobody looks on


class SearchBar(tqdm):
    """A bar of evaluations with the time left, the phase and the best of each budget.

    Where the stream is no terminal each state of the bar is a line of its own, and there is
    one in half a minute.

    Args:
        planned: evaluations of the whole search.
        known: of them, those that are done.
        shown: bool, whether to show anything.
    """

    def __init__(self, planned: int, known: int, shown: bool = True) -> None:
        live = sys.stderr.isatty()
        self._told = 0
        super().__init__(
            total=planned,
            initial=known,
            unit="child",
            disable=not shown,
            dynamic_ncols=live,
            file=None if live else _Lines(sys.stderr),  # type: ignore[arg-type]
            mininterval=0.1 if live else LOG_SECONDS,
        )

    def show(
        self,
        phase: str,
        planned: int,
        selected: Sequence[Mapping[str, Any]],
        screenings: Sequence[Mapping[str, Any]],
    ) -> None:
        """Shows a new state.

        Args:
            phase: of the search.
            planned: evaluations of the whole search.
            selected: the best so far, as `select` returns it.
            screenings: what the predictor did; rounds whose results are all there are told
                once each.
        """
        self.total = planned
        self.set_description(phase, refresh=False)
        best = [f"{entry['name']} {100 * entry['accuracy']:.2f} %" for entry in selected]
        self.set_postfix_str(", ".join(best), refresh=False)
        done = [report for report in screenings if report["fresh_tau"] is not None]
        for report in done[self._told :] if not self.disable else ():
            self.write(sentence(report), file=sys.stderr)
        self._told = len(done)


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
