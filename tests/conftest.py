import importlib
import signal
import sys
from pathlib import Path

import pytest

from bignas_tf.backend import tune_tensorflow

tune_tensorflow()  # as the commands do

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def heeding_signals():
    """Tests that run in the background of a script, or under nohup, hand on what is ignored."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark for one test; its flags are those of others too."""
    from absl import flags

    imported = []

    def imports(name):
        imported.append(name)
        return importlib.import_module(name)

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield imports
    for name in imported:
        defined = {flag.name for flag in flags.FLAGS.flags_by_module_dict()[name]}
        for flag in defined & set(flags.FLAGS):
            delattr(flags.FLAGS, flag)
        del sys.modules[name]
