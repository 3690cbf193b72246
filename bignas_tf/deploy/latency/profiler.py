"""Profiles one TFLite file with LiteRT's own profiler, in a process of its own.

Run as `python -m bignas_tf.deploy.latency.profiler FILE THREADS DELEGATE WARMUP RUNS`; prints
one JSON object. LiteRT's Python classes cannot switch the profiler on (2.3), its C functions
can, so they are called directly. Imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bignas_tf.deploy.interpreter import load_interpreter
from bignas_tf.deploy.latency.operator_times import parse_profile
from bignas_tf.deploy.latency.orders import random_input

_CPU = 1  # LiteRtHwAccelerators
_WRITE = 1  # LiteRtTensorBufferLockMode
_TENSOR_TYPE_BYTES = 512  # more than LiteRtRankedTensorType has; only handed on
_KERNELS = {"xnnpack": "xnnpack", "none": "builtin"}


class _LiteRT:
    """The functions of LiteRT's C library that profiling needs, their statuses checked."""

    def __init__(self) -> None:
        import ai_edge_litert

        [folder] = ai_edge_litert.__path__
        libraries = [path for path in Path(folder).glob("libLiteRt.*") if path.is_file()]
        if not libraries:
            raise RuntimeError("this ai-edge-litert has no library libLiteRt; 2.3 has")
        self.library = ctypes.CDLL(os.fspath(libraries[0]))
        self.c = ctypes.CDLL(None)
        self.c.strdup.restype = ctypes.c_void_p
        self.c.free.argtypes = [ctypes.c_void_p]

    def call(self, name: str, *arguments: Any) -> None:
        """Calls `LiteRt` + name; Python integers are passed as `size_t`."""
        try:
            function = getattr(self.library, f"LiteRt{name}")
        except AttributeError:
            raise RuntimeError(f"this ai-edge-litert has no LiteRt{name}; 2.3 has") from None
        function.restype = ctypes.c_int
        status = function(
            *(ctypes.c_size_t(value) if isinstance(value, int) else value for value in arguments)
        )
        if status:
            raise RuntimeError(f"LiteRt{name} failed with status {status}")

    def make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Calls a function whose last argument is where it puts a pointer."""
        result = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(result))
        return result

    def add_options(self, options: ctypes.c_void_p, name: bytes, text: str) -> None:
        """Adds a named group of options, given as TOML."""
        owned = ctypes.c_void_p(self.c.strdup(text.encode()))
        free = ctypes.cast(self.c.free, ctypes.c_void_p)
        self.call("AddOpaqueOptions", options, self.make("CreateOpaqueOptions", name, owned, free))


class _Model:
    """A file compiled for profiling, its input filled."""

    def __init__(self, path: str, threads: int, delegate: str) -> None:
        interpreter = load_interpreter(path, threads, delegate=delegate)  # refuses wrong ones
        image = random_input(interpreter)
        self.runtime = runtime = _LiteRT()
        self.environment = runtime.make("CreateEnvironment", 0, None)
        self.model = runtime.make("CreateModelFromFile", self.environment, os.fsencode(path))
        options = runtime.make("CreateOptions")
        runtime.call("SetOptionsHardwareAccelerators", options, _CPU)
        runtime.add_options(options, b"runtime_options_string", "enable_profiling = true\n")
        runtime.add_options(
            options,
            b"xnnpack",  # the name of the CPU's options, whatever the kernels
            f'kernel_mode = "{_KERNELS[delegate]}"\nnum_threads = {threads}\n',
        )
        self.compiled = runtime.make("CreateCompiledModel", self.environment, self.model, options)
        self.profiler = runtime.make("CompiledModelGetProfiler", self.compiled)
        self.inputs, self.outputs = self._buffer("Input"), self._buffer("Output")
        memory = ctypes.c_void_p()
        runtime.call("LockTensorBuffer", self.inputs, ctypes.byref(memory), _WRITE)
        ctypes.memmove(memory, image.tobytes(), image.nbytes)
        runtime.call("UnlockTensorBuffer", self.inputs)

    def _buffer(self, side: str) -> ctypes.c_void_p:
        """Memory for the one input or the one output."""
        make = self.runtime.make
        signature = make("GetModelSignature", self.model, 0)
        tensor = make(f"GetSignature{side}TensorByIndex", signature, 0)
        kind = ctypes.create_string_buffer(_TENSOR_TYPE_BYTES)
        self.runtime.call("GetRankedTensorType", tensor, kind)
        needs = make(f"GetCompiledModel{side}BufferRequirements", self.compiled, 0, 0)
        return make("CreateManagedTensorBufferFromRequirements", self.environment, kind, needs)

    def invoke(self) -> None:
        """Runs once."""
        inputs, outputs = (ctypes.c_void_p * 1)(self.inputs), (ctypes.c_void_p * 1)(self.outputs)
        self.runtime.call("RunCompiledModel", self.compiled, 0, 1, inputs, 1, outputs)

    def profiled(self, runs: int) -> str:
        """Runs with the profiler on and gives what it says."""
        self.runtime.call("ResetProfiler", self.profiler)
        self.runtime.call("StartProfiler", self.profiler)
        for _ in range(runs):
            self.invoke()
        self.runtime.call("StopProfiler", self.profiler)
        text = self.runtime.make("GetProfileSummary", self.profiler, self.compiled)
        try:
            return ctypes.string_at(text.value or 0).decode("utf-8", "replace")
        finally:
            self.runtime.c.free(text)


def profile(path: str, threads: int, delegate: str, warmup: int, runs: int) -> dict[str, Any]:
    """Averages the operators' times over runs.

    The profiler counts whole microseconds.

    Args:
        path: a `.tflite` file.
        threads: int, at least 1.
        delegate: `"xnnpack"` or `"none"`.
        warmup: int, runs without the profiler before.
        runs: int, runs with the profiler.

    Returns:
        `operators`: kind, name and milliseconds of each, and `total_ms`, the median
        time of one run with the profiler off.

    Raises:
        ValueError: if the file or an argument is refused.
        RuntimeError: if LiteRT does not profile it.
    """
    model = _Model(path, threads, delegate)
    for _ in range(warmup):
        model.invoke()
    totals = []
    for _ in range(runs):
        start = time.perf_counter()
        model.invoke()
        totals.append((time.perf_counter() - start) * 1e3)
    operators = parse_profile(model.profiled(runs))
    if not operators:
        raise RuntimeError(f"LiteRT's profiler named no operators of {path}")
    return {
        "operators": [dataclasses.astuple(operator) for operator in operators],
        "total_ms": statistics.median(totals),
    }


def main(arguments: list[str]) -> int:
    """Prints the profile as JSON, or says in one line why not.

    Args:
        arguments: file, threads, delegate, warm-up runs, runs.

    Returns:
        The exit status.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native libraries may print to stdout
    path, threads, delegate, warmup, runs = arguments
    try:
        found = profile(path, int(threads), delegate, int(warmup), int(runs))
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print(json.dumps(found), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
