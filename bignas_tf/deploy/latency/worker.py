"""Times one TFLite file in a process of its own, on orders from `host`.

Run as `python -m bignas_tf.deploy.latency.worker FILE THREADS DELEGATE`. Imports neither
TensorFlow nor Keras: they would cost seconds and count as the model's memory.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from bignas_tf.deploy.interpreter import delegated_parts, load_interpreter
from bignas_tf.deploy.latency.orders import random_input, serve


def timed(interpreter: Any, warmup: int, runs: int) -> list[int]:
    """Invokes `warmup` times, then `runs` times with the clock on: nanoseconds of each."""
    for _ in range(warmup):
        interpreter.invoke()
    durations = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        interpreter.invoke()
        durations.append(time.perf_counter_ns() - start)
    return durations


class File:
    """A file, loaded; its input stays the same.

    Args:
        path: a `.tflite` file.
        threads: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.
    """

    def __init__(self, path: str, threads: int, delegate: str) -> None:
        self._interpreter = load_interpreter(path, threads, delegate=delegate)
        index = self._interpreter.get_input_details()[0]["index"]
        self._interpreter.set_tensor(index, random_input(self._interpreter))

    @property
    def parts(self) -> int:
        """Parts of the graph that a delegate took."""
        return delegated_parts(self._interpreter)

    def round(self, warmup: int, runs: int) -> list[int]:
        """Nanoseconds of each of `runs` runs, after `warmup` others."""
        return timed(self._interpreter, warmup, runs)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], File))
