"""What the arguments and variables of many workers may be."""

import argparse
import sys

import pytest

from bignas_tf.commands.worker_arguments import add_workers, chief_of, set_threads
from bignas_tf.search.worker import check_worker

WHERE = {"KERASTUNER_ORACLE_IP": "10.0.0.1", "KERASTUNER_ORACLE_PORT": "8470"}


@pytest.fixture(autouse=True)
def no_import(monkeypatch):
    """KerasTuner takes seconds to load."""
    monkeypatch.setitem(sys.modules, "keras_tuner", argparse)


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_workers(parser)
    parser.set_defaults(workdir="runs/mine", backend="tensorflow", data=None)
    return parser.parse_args(arguments)


def test_without_arguments_there_is_no_chief():
    assert chief_of(parsed()) is None


def test_workers_of_a_machine_share_its_cores_and_get_the_same_run(monkeypatch):
    monkeypatch.setattr("bignas_tf.commands.worker_arguments._cores", lambda: 8)
    chief = chief_of(parsed("--workers=3", "--port=8470"))
    assert (chief.ip, chief.port, chief.workers) == ("127.0.0.1", 8470, 3)
    assert {"--role=worker", "--workdir=runs/mine", "--threads=2"} < set(chief.command)
    assert "--threads=5" in chief_of(parsed("--workers=3", "--threads=5")).command


def test_a_chief_of_other_machines_is_where_the_variables_say(monkeypatch):
    for name, value in WHERE.items():
        monkeypatch.setenv(name, value)
    chief = chief_of(parsed("--role=chief"))
    assert (chief.ip, chief.port, chief.workers) == ("10.0.0.1", 8470, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=0"], "`workers` must be an integer of at least 1. Received: 0"),
        (["--workers=2", "--port=70000"], "`port` must be at most 65535. Received: 70000"),
        (["--role=chief", "--workers=2"], "`workers` must be left out with --role"),
        (["--role=chief", "--port=1"], "`port` must be left out with --role"),
        (["--role=chief"], "`KERASTUNER_ORACLE_IP` must be set: where the chief is"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message, monkeypatch):
    monkeypatch.delenv("KERASTUNER_ORACLE_IP", raising=False)
    with pytest.raises(ValueError, match=message):
        chief_of(parsed(*arguments))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"KERASTUNER_TUNER_ID": ""}, "`KERASTUNER_TUNER_ID` must be a name of this worker's own"),
        ({"KERASTUNER_TUNER_ID": "chief2"}, "without 'chief' in it. Received: 'chief2'"),
        ({"KERASTUNER_ORACLE_PORT": "no"}, "`KERASTUNER_ORACLE_PORT` must be a port, 1 to 65535"),
        ({"KERASTUNER_ORACLE_IP": ""}, "`KERASTUNER_ORACLE_IP` must be set"),
    ],
)
def test_a_worker_without_a_name_or_a_chief_is_refused(changed, message):
    check_worker(WHERE | {"KERASTUNER_TUNER_ID": "worker0"})
    with pytest.raises(ValueError, match=message):
        check_worker(WHERE | {"KERASTUNER_TUNER_ID": "worker0"} | changed)


def test_threads_are_tensorflows_and_at_least_one():
    with pytest.raises(ValueError, match="`threads` must be an integer of at least 1"):
        set_threads(parsed("--threads=0"))
    with_jax = parsed("--threads=2")
    with_jax.backend = "jax"
    with pytest.raises(ValueError, match="`threads` must be left out with --backend=jax"):
        set_threads(with_jax)


def test_without_kerastuner_many_workers_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    expected = r"A search with many workers needs keras_tuner; .*: pip install '\.\[search\]'"
    with pytest.raises(ModuleNotFoundError, match=expected):
        chief_of(parsed("--workers=2"))
