"""A worker: evaluates what a chief hands out over KerasTuner's service."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

from bignas_tf.checks import require
from bignas_tf.search.evaluator import Evaluator
from bignas_tf.spaces import Space

TUNER_ID = "KERASTUNER_TUNER_ID"
ORACLE_IP = "KERASTUNER_ORACLE_IP"
ORACLE_PORT = "KERASTUNER_ORACLE_PORT"
# The process without which a worker has no reason to live.
LAUNCHER = "BIGNAS_LAUNCHER"
LOOK_SECONDS = 0.5


def address(environ: Mapping[str, str]) -> tuple[str, int]:
    """The chief's IP address and port, from KerasTuner's variables.

    Raises:
        ValueError: if one of them is missing or no port.
    """
    for name in (ORACLE_IP, ORACLE_PORT):
        require(bool(environ.get(name)), name, "set: where the chief is", environ.get(name))
    port = environ[ORACLE_PORT]
    ok = port.isdecimal() and 0 < int(port) < 2**16
    require(ok, ORACLE_PORT, "a port, 1 to 65535", port)
    return environ[ORACLE_IP], int(port)


def check_worker(environ: Mapping[str, str]) -> None:
    """Refuses an environment that no worker can work in.

    Raises:
        ValueError: if one of KerasTuner's variables is missing or impossible.
    """
    address(environ)
    name = environ.get(TUNER_ID, "")
    # KerasTuner takes every process for the chief that has the word in its id.
    ok = bool(name) and "chief" not in name
    require(ok, TUNER_ID, "a name of this worker's own, without 'chief' in it", name)


def work(space: Space, evaluator: Evaluator, search: str = "") -> None:
    """Evaluates for the chief at KERASTUNER_ORACLE_IP until nothing is left.

    A chief that goes away is waited for, an hour at most, and so is one that is not there
    yet. What was being evaluated for the old one is lost.

    Args:
        space: of the children.
        evaluator: of them.
        search: what the evaluations are of, as of `StrategyOracle`.

    Raises:
        ValueError: if one of KerasTuner's variables is missing or impossible.
        keras_tuner.errors.FatalError: if an evaluation fails, or is not of the chief's search.
        RuntimeError: if no chief answers.
    """
    check_worker(os.environ)
    watch_launcher()
    # First: it says what to install where KerasTuner is missing.
    from bignas_tf.search.tuner import ChildTuner  # isort: skip
    import grpc  # isort: skip

    # The chief is a neighbour: a proxy for the web does not lead to it.
    os.environ.setdefault("no_grpc_proxy", os.environ[ORACLE_IP])
    tuner = ChildTuner(space, evaluator, search=search)
    while True:
        try:
            return tuner.search()
        except grpc.RpcError as error:
            code = error.code()
            if code != grpc.StatusCode.UNAVAILABLE:
                where = ":".join(map(str, address(os.environ)))
                raise RuntimeError(f"The chief at {where} does not answer: {code.name}") from error
            print("the chief is gone; waiting for it to come back", flush=True)


def watch_launcher() -> None:
    """Ends this process as soon as the one that launched it is gone, even if killed."""
    if LAUNCHER not in os.environ:
        return
    launcher = int(os.environ[LAUNCHER])

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
