"""The machine that this runs on."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes of main memory that programs may still take; None where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def device() -> str:
    """Platform and model of what Keras computes on, such as `gpu NVIDIA H100`."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        devices = jax.local_devices()
        kind, count = devices[0].platform, len(devices)
        model = cpu_model() if kind == "cpu" else devices[0].device_kind
        return f"{kind} {model}" + (f" x{count}" if count > 1 else "")
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"cpu {cpu_model()}"
    return f"gpu {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'unknown')}"
