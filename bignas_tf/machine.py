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
    """Bytes of main memory that this process may still take; None where the system does not say.

    What is available on the machine, or less where a container or a job has a limit (cgroup).
    """
    found = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    return min([*found, *_cgroup_rooms()], default=None)


def _cgroup_rooms(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Bytes left below each limit on the memory of this process's control groups (version 2)."""
    found = []
    with contextlib.suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            group, names = root, line.partition("0::/")[2].split("/")
            for name in ["", *names] if line.startswith("0::") else []:
                group = group / name
                with contextlib.suppress(OSError, ValueError):  # no limit: no such file, or "max"
                    limit = int((group / "memory.max").read_text(encoding="ascii"))
                    used = int((group / "memory.current").read_text(encoding="ascii"))
                    stat = dict(map(str.split, (group / "memory.stat").read_text().splitlines()))
                    # Files that were read and are not in use count as used, and go first.
                    found.append(max(0, limit - used + int(stat["inactive_file"])))
    return found


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
