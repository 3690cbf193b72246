"""SIGKILL of anything at any moment costs at most what was being evaluated."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tabular_process
from landscapes import noisy

from bignas_tf.search import TabularEvaluator, select
from bignas_tf.search.chief import Chief
from bignas_tf.search.worker_processes import RESTARTS

# KerasTuner asks threads for their names in a way that Python 3.10 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")
PATIENCE = 600  # seconds, of a busy machine


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines(path):
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The files of a search in one process that nothing interrupts."""
    folder = tmp_path_factory.mktemp("unbroken")
    search(folder)
    return contents(folder)


def search(folder):
    select(
        tabular_process.SPACE,
        TabularEvaluator(noisy),
        tabular_process.BUDGETS,
        strategy=tabular_process.new_strategy(),
        folder=folder,
        progress=False,
    )


@contextlib.contextmanager
def process(*arguments):
    """A process that is gone at the end, whatever happens."""
    command = tabular_process.command(*arguments)
    with subprocess.Popen(command) as running:  # noqa: S603 - our own script
        try:
            yield running
        finally:
            running.kill()


def wait_until(holds, *arguments):
    deadline = time.monotonic() + PATIENCE
    while not holds(*arguments):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def has_lines(path, count):
    return len(lines(path)) >= count


def test_one_process_killed_at_random_goes_on_as_if_it_had_not(tmp_path, unbroken):
    folder, log = tmp_path / "search", tmp_path / "log"
    points = folder / "points.jsonl"
    rng, kills = np.random.default_rng(4), 0
    whole = len(unbroken["points.jsonl"].splitlines())
    while kills < 4:
        known = len(lines(points))
        with process("alone", folder, log, 0.03) as running:
            wait_until(has_lines, points, known + int(rng.integers(1, 8)))
            time.sleep(rng.random() * 0.06)
            running.send_signal(signal.SIGKILL)
            kills += running.wait() == -signal.SIGKILL
        begun, kept = collections.Counter(lines(log)), len(lines(points))
        assert known < kept < whole  # it was killed in the middle
        # Each kill cost the evaluation in flight at most, and nothing known was done again.
        assert kept <= begun.total() <= kept + kills
    with process("alone", folder, log, 0) as running:
        assert running.wait(PATIENCE) == 0
    assert contents(folder) == unbroken
    begun = collections.Counter(lines(log))
    assert len(begun) == whole
    assert begun.total() <= whole + kills


def test_files_that_a_kill_left_half_written_are_gone_at_the_end(tmp_path, unbroken):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:  # noqa: S603 - our own code
        pass
    (tmp_path / "selected").mkdir()
    for name in ("front.csv", "state.json", "selected/mmacs_0.1.json"):
        path = tmp_path / name
        path.with_name(f".{path.name}.{dead.pid}.tmp").write_bytes(b"ha")
    search(tmp_path)
    assert contents(tmp_path) == unbroken


@contextlib.contextmanager
def patience():
    """Ends a search of this process that waits for what does not come."""

    def give_up(number, frame):
        raise TimeoutError("waited in vain")

    old = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def kill_when_held(held):
    wait_until(lambda: held.exists() and held.read_text(encoding="utf-8"))
    os.kill(int(held.read_text(encoding="utf-8")), signal.SIGKILL)
    held.unlink()


@pytest.mark.slow
def test_a_worker_killed_while_it_evaluates_costs_one_evaluation(
    tmp_path, unbroken, capfd, monkeypatch
):
    monkeypatch.setattr("bignas_tf.search.progress.LOG_SECONDS", 0.0)  # every state, a line each
    folder, log, held = tmp_path / "search", tmp_path / "log", tmp_path / "held"
    killer = threading.Thread(target=kill_when_held, args=[held], daemon=True)
    killer.start()
    search = tabular_process.new_search(folder)
    chief = tabular_process.new_chief(folder, log, 0.02, held)
    with patience():
        selected = chief.run(search)
    killer.join(PATIENCE)
    assert contents(folder) == unbroken
    assert [entry["name"] for entry in selected] == [b.name for b in tabular_process.BUDGETS]
    begun = collections.Counter(lines(log))
    assert sorted(begun.values()) == [1] * (len(search.points) - 1) + [2]
    shown = capfd.readouterr().err
    assert "worker1 died and is started again" in shown
    assert f"{len(search.points)}/{len(search.points)}" in shown
    best = max(entry["accuracy"] for entry in selected)
    assert f"{100 * best:.2f} %" in shown.splitlines()[-1]  # not as of the last state but one
    assert "no worker has come yet" in shown
    assert "evaluating: worker0 for 00:00" in shown or "evaluating: worker1 for 00:00" in shown


def children(pid):
    """Process ids of a process's children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.long
@pytest.mark.usefixtures("heeding_signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_chief_leaves_nothing_running_and_its_search_goes_on(tmp_path, unbroken, number):
    folder, log = tmp_path / "search", tmp_path / "log"
    with process("chief", folder, log, 0.05) as running:
        wait_until(has_lines, folder / "points.jsonl", 10)
        workers = children(running.pid)
        assert len(workers) == tabular_process.WORKERS
        running.send_signal(number)
        assert running.wait(PATIENCE) != 0
    wait_until(lambda: all(map(gone, workers)))
    known = len(lines(folder / "points.jsonl"))
    assert len(lines(log)) <= known + len(workers)
    with process("chief", folder, log, 0) as running:
        assert running.wait(PATIENCE) == 0
    assert contents(folder) == unbroken
    assert len(lines(log)) <= len(unbroken["points.jsonl"].splitlines()) + len(workers)


def test_workers_that_die_again_and_again_end_the_search_with_their_last_words(tmp_path, capfd):
    dying = ["sh", "-c", "echo no images; exit 3"]
    search = tabular_process.new_search(tmp_path)
    with pytest.raises(RuntimeError, match=rf"worker\d died {RESTARTS + 1} times .* 3: no images"):
        Chief(workers=2, command=dying).run(search, progress=False)
    assert "  no images" in capfd.readouterr().err


def test_a_port_that_is_taken_is_refused(tmp_path):
    from bignas_tf.search.chief import serving
    from bignas_tf.search.oracle import StrategyOracle

    make = functools.partial(
        StrategyOracle, tabular_process.SPACE, tabular_process.new_search(tmp_path)
    )
    with serving(make()) as port, pytest.raises(OSError, match=f"must be free .*: {port}"):
        with serving(make(), port=port):
            pass
