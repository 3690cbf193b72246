"""The arguments of `bignas select` that say which processes evaluate."""

from __future__ import annotations

import os
import sys
from typing import Any

from bignas_tf.checks import require, require_int
from bignas_tf.optional import require_package
from bignas_tf.search.chief import Chief
from bignas_tf.search.worker import address

ROLES = ("chief", "worker")


def add_workers(parser: Any) -> None:
    """Adds --workers, --threads, --port and --role."""
    parser.add_argument(
        "--workers", type=int, help="processes of this machine that evaluate (default: 1)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads of an operation in each process (default: the cores divided by "
        "--workers); the last digits of an accuracy depend on it",
    )
    parser.add_argument("--port", type=int, help="for --workers (default: one that is free)")
    parser.add_argument(
        "--role",
        choices=ROLES,
        help="a chief for workers on other machines, or one of them; set KERASTUNER_ORACLE_IP and "
        "KERASTUNER_ORACLE_PORT to the chief's address, and for a worker KERASTUNER_TUNER_ID to "
        "its name",
    )


def chief_of(arguments: Any) -> Chief | None:
    """The chief that the arguments ask for; None if this process is to evaluate.

    Raises:
        ValueError: for arguments that do not go together.
        ModuleNotFoundError: if KerasTuner is needed and not installed.
    """
    check_role(arguments)
    workers = 1 if arguments.workers is None else arguments.workers
    require_int("workers", workers)
    if arguments.role is None and workers == 1:
        few = "left out without `workers` of 2 or more"
        require(arguments.port is None, "port", few, arguments.port)
        return None
    require_package("keras_tuner", "search", "A search with many workers")
    if arguments.role is None:
        port = 0 if arguments.port is None else arguments.port
        return Chief(port=port, workers=workers, command=_worker_command(arguments))
    ip, port = address(os.environ)
    return Chief(ip, port)


def check_role(arguments: Any) -> None:
    """Refuses, for a chief or worker started by hand, what only the machine's own have.

    Raises:
        ValueError: naming the argument.
    """
    if arguments.role is not None:
        for name in ("workers", "port"):
            value = getattr(arguments, name)
            require(value is None, name, "left out with --role", value)


def set_threads(arguments: Any) -> None:
    """Limits the threads of TensorFlow's operations, before it computes anything.

    Raises:
        ValueError: for a number that cannot be, or with JAX, which has no such limit.
    """
    threads = arguments.threads
    if threads is None:
        return
    require_int("threads", threads)
    require(arguments.backend == "tensorflow", "threads", "left out with --backend=jax", threads)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)


def threads_of(arguments: Any) -> int | None:
    """Threads of an operation in each process that evaluates.

    Returns:
        None where this process does not say: with JAX, and for a chief of other machines.
    """
    if arguments.backend != "tensorflow" or arguments.role is not None:
        return None
    return arguments.threads or max(1, _cores() // (arguments.workers or 1))


def _worker_command(arguments: Any) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "bignas_tf.cli",
        "select",
        "--role=worker",
        f"--workdir={arguments.workdir}",
        f"--backend={arguments.backend}",
    ]
    if arguments.data:
        command.append(f"--data={arguments.data}")
    if arguments.backend == "tensorflow":
        command.append(f"--threads={threads_of(arguments)}")
    return command


def _cores() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
