"""What the processes that time TFLite files share: they answer orders of `process`.

A process loads what its arguments name and says so in one line. Then it reads one JSON object
per line, `{"warmup": 5, "runs": 20}`, and answers each with one line.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bignas_tf.deploy.interpreter import input_and_output


class Loaded(Protocol):
    """What a process times."""

    @property
    def parts(self) -> int:
        """Parts of the graphs that a delegate took."""

    def round(self, warmup: int, runs: int) -> list[int]:
        """Nanoseconds of each run of each file, after `warmup` runs of it."""


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MB (1e6 bytes)."""
    try:
        # Linux hands the peak of the process that forked us, TensorFlow and all, on to our
        # ru_maxrss; VmHWM starts anew with our own program.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def random_input(interpreter: Any) -> np.ndarray:
    """Uniform noise in [-1, 1), quantized if the input is."""
    source, _ = input_and_output(interpreter)
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, source.shape)
    return source.stored(noise)


def serve(arguments: list[str], load: Callable[[str, int, str], Loaded]) -> int:
    """Answers orders until stdin closes, or says in one line why not.

    Args:
        arguments: of the command line: what to load, threads (at least 1), delegate
            (`"xnnpack"` or `"none"`).
        load: loads it.

    Returns:
        The exit status.
    """
    path, threads, delegate = arguments
    # Native libraries may print to stdout: answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        loaded = load(path, int(threads), delegate)
        print(json.dumps({"parts": loaded.parts}), file=answers, flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            durations = loaded.round(order["warmup"], order["runs"])
            answer = {"nanoseconds": durations, "peak_rss_mb": peak_rss_mb()}
            print(json.dumps(answer), file=answers, flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
