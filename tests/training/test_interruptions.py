"""Which signals are noticed between steps."""

import signal

from bignas_tf.training.interruptions import Interruptions


def test_systems_without_sighup_stop_on_the_other_signals(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    with Interruptions() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGTERM)
        assert interrupted()


def test_a_signal_that_is_ignored_at_the_start_stays_ignored():
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Interruptions() as interrupted:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupted()
            signal.raise_signal(signal.SIGTERM)
            assert interrupted()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)
