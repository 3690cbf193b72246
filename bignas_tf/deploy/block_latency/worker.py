"""Times the TFLite files of a folder in turns, in one process, on orders from `host`.

Run as `python -m bignas_tf.deploy.block_latency.worker FOLDER THREADS DELEGATE`; the protocol
is that of `latency.orders`. In a network a block finds its input in the cache, fresh from the
block before, and its weights wherever the other blocks have left them. So do files that take
turns in one process, each with its input written just before.

With one thread the clock is the thread's own CPU time: what other processes take does not
count, which stretches a whole network, that is interrupted, more than a block, that is not.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from bignas_tf.deploy.interpreter import delegated_parts, load_interpreter
from bignas_tf.deploy.latency.orders import random_input, serve


class Turns:
    """The files of a folder, loaded.

    Args:
        folder: of `.tflite` files.
        threads: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.
    """

    def __init__(self, folder: str, threads: int, delegate: str) -> None:
        self._interpreters = [
            load_interpreter(path, threads, delegate=delegate)
            for path in sorted(Path(folder).glob("*.tflite"))
        ]
        self._inputs = [random_input(interpreter) for interpreter in self._interpreters]
        self._clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
        self._round = 0

    @property
    def parts(self) -> int:
        """Parts of the graphs that a delegate took, all files together."""
        return sum(map(delegated_parts, self._interpreters))

    def round(self, warmup: int, runs: int) -> list[int]:
        """Nanoseconds of each run of each file, the files in the order of their names.

        Each round runs the files in another order, so that none always follows the same one.
        """
        rng = np.random.Generator(np.random.Philox(self._round))
        self._round += 1
        found: list[list[int]] = [[] for _ in self._interpreters]
        for index in rng.permutation(len(found)):
            found[index] = [self._timed(index) for _ in range(warmup + runs)][warmup:]
        return [duration for durations in found for duration in durations]

    def _timed(self, index: int) -> int:
        interpreter = self._interpreters[index]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], self._inputs[index])
        start = self._clock()
        interpreter.invoke()
        return self._clock() - start


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], Turns))
