"""The Keras backend of a command and its settings: chosen before it loads, never after."""

from __future__ import annotations

import logging
import os
import platform
import sys
from typing import Any

from bignas_tf.checks import require_choice
from bignas_tf.optional import require_package

BACKENDS = ("tensorflow", "jax")


def add_backend(parser: Any) -> None:
    """Adds --backend."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=os.environ.get("KERAS_BACKEND", BACKENDS[0]),
        help="what Keras computes with (default: $KERAS_BACKEND or tensorflow); jax is for one "
        "host with accelerators, needs the extra `jax` and does not load TensorFlow",
    )


def choose_backend(name: str) -> None:
    """Makes Keras use a backend in this process.

    Raises:
        ValueError: for an unknown one, or if Keras has loaded with another.
        ModuleNotFoundError: if JAX is wanted and not installed; says what to install.
    """
    require_choice("backend", name, BACKENDS)
    keras = sys.modules.get("keras")
    if keras is not None:
        if keras.backend.backend() != name:
            raise ValueError(
                f"`backend` must be {keras.backend.backend()}: Keras has loaded with it. "
                f"Received: {name}"
            )
        return
    if name == "jax":
        require_package("jax", "jax", "--backend=jax")
    os.environ["KERAS_BACKEND"] = name
    if name == "jax":
        _configure_jax()


def tune_tensorflow() -> None:
    """Sets what TensorFlow reads when it loads, unless the environment says otherwise.

    The BFC allocator spares a CPU the page faults of large buffers. oneDNN's kernels are faster
    than Eigen's on processors without AVX-512 too, where TensorFlow leaves them off
    (docs/performance.md).
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _configure_jax() -> None:
    """Keeps compiled programs between processes; says where there is no accelerator."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "bignas_tf", "jax"))
    # Evaluations are made of many programs that compile in less than a second each.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    logging.getLogger("jax").setLevel(logging.WARNING)  # it would tell of every kind not found
    if jax.devices()[0].platform == "cpu":
        print("no accelerator found: JAX computes on the CPU")
