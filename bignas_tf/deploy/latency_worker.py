"""Times one TFLite file in a process of its own, on orders from `bignas_tf.deploy.latency`.

Run as `python -m bignas_tf.deploy.latency_worker FILE THREADS DELEGATE`. Reads one JSON
object per line, `{"warmup": 5, "runs": 20}`, and answers each with one line. Imports neither
TensorFlow nor Keras: they would cost seconds and count as the model's memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bignas_tf.deploy.interpreter import delegated_parts, input_and_output, load_interpreter


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


def serve(path: str, threads: int, delegate: str) -> None:
    """Loads the file, says so, and answers orders until stdin closes.

    Args:
        path: a `.tflite` file.
        threads: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.
    """
    # Native libraries may print to stdout: answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    interpreter = load_interpreter(path, threads, delegate=delegate)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], random_input(interpreter))
    print(json.dumps({"parts": delegated_parts(interpreter)}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        durations = timed(interpreter, order["warmup"], order["runs"])
        answer = {"nanoseconds": durations, "peak_rss_mb": peak_rss_mb()}
        print(json.dumps(answer), file=answers, flush=True)


def main(arguments: list[str]) -> int:
    """Serves, or says in one line why not.

    Args:
        arguments: file, threads, delegate.

    Returns:
        The exit status.
    """
    path, threads, delegate = arguments
    try:
        serve(path, int(threads), delegate)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
