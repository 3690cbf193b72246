"""What is said to nobody: it ends no work and changes no exit code."""

import os
import subprocess  # noqa: S404 - starts this package's own processes
import sys

import pytest

from bignas_tf.terminal import perhaps_unread, say

SAYS = """
import sys
from bignas_tf.terminal import say
for _ in range(3):
    say("out")
    say("error", error=True)
sys.exit(7)
"""


@pytest.mark.parametrize("unread", ["stdout", "stderr", "both"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_process_that_nobody_reads_ends_with_its_own_status(unread, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    streams |= {name: writer for name in streams if unread in (name, "both")}
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", SAYS], env=environment, text=True, **streams
    )
    os.close(writer)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 7
    assert out == (None if unread != "stderr" else "out\n" * 3)
    assert err == (None if unread != "stdout" else "error\n" * 3)


def test_what_can_be_read_is_said_where_it_belongs(capsys):
    say("one")
    say("two", error=True)
    assert capsys.readouterr() == ("one\n", "two\n")


class Broken:
    """A stream that is no file."""

    def write(self, *_):
        raise BrokenPipeError

    flush = fileno = write


@pytest.mark.parametrize("stream", [None, Broken()])
def test_where_there_is_no_file_to_write_to_work_goes_on_too(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with perhaps_unread():
        raise BrokenPipeError
    say("nothing")
    say("nothing", error=True)
    assert sys.stdout is sys.stderr is stream  # left as they were
