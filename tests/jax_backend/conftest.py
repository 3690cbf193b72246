"""Tests of Keras on JAX: `KERAS_BACKEND=jax python -m pytest tests/jax_backend`.

A process has one backend, and that of the other tests is TensorFlow.
"""

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

if os.environ.get("KERAS_BACKEND") == "jax":
    # Read when JAX loads. Two devices, for data parallelism; compilation is most of the time
    # of these tests: it is kept short, and no program is compiled twice.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
    )
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(TESTS.parent / ".pytest_cache" / "jax"))
    collect_ignore_glob = []
else:
    collect_ignore_glob = ["test_*.py"]
