"""The chief of many workers: runs a search, hands its evaluations out, writes its files."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from tqdm import tqdm

from bignas_tf.checks import require, require_int
from bignas_tf.search.select import Search
from bignas_tf.search.worker_processes import WorkerProcesses
from bignas_tf.termination import terminated_as_interrupted

LOOPBACK = "127.0.0.1"
LOOK_SECONDS = 0.2
FAREWELL_SECONDS = 10.0
NAMED = 4  # workers that the bar names, those first that take longest


@dataclasses.dataclass(frozen=True)
class Chief:
    """Where the chief is, and the workers that it starts itself.

    Attributes:
        ip: address that workers reach it at.
        port: of the service; 0 for one that is free.
        workers: number of workers to start on this machine; with 0 they come from elsewhere.
        command: of one worker.

    Raises:
        ValueError: for a number that cannot be.
    """

    ip: str = LOOPBACK
    port: int = 0
    workers: int = 0
    command: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_int("workers", self.workers, low=0)
        require_int("port", self.port, low=0)
        require(self.port < 2**16, "port", "at most 65535", self.port)

    def run(self, search: Search, name: str = "", progress: bool = True) -> list[dict[str, Any]]:
        """Runs a search to its end.

        Every result is on the disk as soon as it is there. The files are those of `select`
        in the end, byte for byte: the strategy hears the results in its own order.

        Args:
            search: with no evaluator of its own.
            name: what workers must be of, too, as of `StrategyOracle`.
            progress: bool, whether to show a bar with the time left.

        Returns:
            What `select` does.

        Raises:
            OSError: if the port is taken.
            RuntimeError: if workers die again and again, or as `select`.
        """
        from bignas_tf.search.oracle import StrategyOracle

        oracle = StrategyOracle(search.points.space, search, search.points, search=name)
        with (
            terminated_as_interrupted(),  # the workers are ended on the way out
            serving(oracle, self.ip, self.port) as port,
            WorkerProcesses(self.workers, self.command, self.ip, port) as processes,
            search.bar(progress) as bar,
        ):
            if not self.workers:
                bar.write(f"waiting for workers at {self.ip}:{port}", file=sys.stderr)
            while not oracle.finished:
                for worker in processes.check(oracle.evaluated):
                    bar.write(f"{worker} died and is started again", file=sys.stderr)
                search.show(bar, waiting_for(oracle.holders, oracle.tuner_ids))
                time.sleep(LOOK_SECONDS)
            search.show(bar)
            # A worker asks once more and hears that there is nothing left.
            deadline = time.monotonic() + FAREWELL_SECONDS
            while oracle.tuner_ids and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
        if oracle.error is not None:
            raise oracle.error
        search.require_finished()
        search.arrange()
        return search.finish()


def waiting_for(holders: Mapping[str, float], workers: Collection[str]) -> str:
    """Whose turn it is, in words.

    Args:
        holders: for how many seconds workers have had the child that they evaluate.
        workers: ids of all that have come.
    """
    if not workers:
        return "no worker has come yet"
    if not holders:
        return f"no worker evaluates, of {len(workers)} that came"
    longest = sorted(holders, key=holders.__getitem__, reverse=True)
    named = [f"{name} for {tqdm.format_interval(holders[name])}" for name in longest[:NAMED]]
    more = [f"{len(longest) - NAMED} more"] if len(longest) > NAMED else []
    return f"evaluating: {', '.join(named + more)}"


@contextlib.contextmanager
def serving(oracle: Any, ip: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """Answers the calls of workers to an oracle; yields the port.

    KerasTuner's own loop cannot be ended, and takes a port that another chief has.

    Raises:
        OSError: if the port is taken.
    """
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    # KerasTuner's lock knows threads by their names, so there is to be one.
    pool = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="oracle")
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(oracle), server)
    try:
        bound = server.add_insecure_port(f"{ip}:{port}")
    except RuntimeError as error:
        raise OSError(f"`port` must be free at {ip}. Received: {port}") from error
    server.start()
    try:
        yield bound
    finally:
        server.stop(grace=1).wait()
        pool.shutdown()
