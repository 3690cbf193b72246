"""Files and folders that take the place of others."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from bignas_tf.files import only_writer, remove_remains, replace_folder, restore_folder, sync

KILLED = """
import os, pathlib, sys
from bignas_tf import files
new, target = map(pathlib.Path, sys.argv[1:])
rename = os.replace
def killed(source, place):
    rename(source, place)
    os.kill(os.getpid(), 9)
os.replace = killed
files.replace_folder(new, target)
"""


@pytest.fixture
def folders(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "word").write_text(name)
    return tmp_path / "new", tmp_path / "old"


def word(folder):
    return (folder / "word").read_text()


def test_a_folder_takes_the_place_of_another_or_of_none(folders, tmp_path):
    new, old = folders
    replace_folder(new, old)
    assert os.listdir(tmp_path) == ["old"] and word(old) == "new"
    replace_folder(old, tmp_path / "third")
    assert os.listdir(tmp_path) == ["third"]


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(folders, tmp_path):
    _, old = folders
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", old)
    assert sorted(os.listdir(tmp_path)) == ["new", "old"] and word(old) == "old"


def test_a_folder_comes_back_after_a_kill_between_the_renames(folders, tmp_path):
    new, old = folders
    done = subprocess.run([sys.executable, "-c", KILLED, new, old])  # noqa: S603
    assert done.returncode == -9
    assert not old.exists()
    restore_folder(old)
    assert sorted(os.listdir(tmp_path)) == ["new", "old"] and word(old) == "old"


def test_what_a_kill_after_the_renames_left_goes(folders, tmp_path):
    new, old = folders
    os.replace(old, tmp_path / ".new.before")
    restore_folder(new)
    assert os.listdir(tmp_path) == ["new"] and word(new) == "new"


STAGED = """
import os, pathlib, sys, time
from bignas_tf.files import staged, staging_folder
output = pathlib.Path(sys.argv[1])
with staged(output), staging_folder(output.with_name("b")) as folder:
    (folder / "word").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_was_writing_goes_and_what_another_writes_stays(tmp_path):
    output = tmp_path / "a"
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", STAGED, output], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            writing = sorted(os.listdir(tmp_path))
            assert writing == [f".a.{process.pid}.tmp", f".b.{process.pid}.tmp"]
            (tmp_path / f".a.{os.getpid()}.tmp").touch()  # an earlier process of our number
            remove_remains(output)
            remove_remains(tmp_path / "b")
            assert sorted(os.listdir(tmp_path)) == writing
        finally:
            process.kill()
    assert sorted(os.listdir(tmp_path)) == writing
    remove_remains(output)
    assert os.listdir(tmp_path) == writing[1:]
    remove_remains(tmp_path / "b")
    assert os.listdir(tmp_path) == []


def test_folders_are_flushed_to_the_disk_only_where_that_can_be_asked_for(tmp_path, monkeypatch):
    flushed = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_ino))
        sync(tmp_path)
        patch.setattr(os, "name", "nt")
        sync(tmp_path)
    assert flushed == [tmp_path.stat().st_ino]


def fails_to_lock(monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_folder_whose_file_system_has_no_locks_is_written_to_with_a_warning(
    tmp_path, monkeypatch, code
):
    fails_to_lock(monkeypatch, code)
    message = rf"file system of {tmp_path} has no locks \({os.strerror(code)}\)"
    with pytest.warns(RuntimeWarning, match=message), only_writer(tmp_path, "trained into"):
        (tmp_path / "word").write_text("new")


def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch):
    fails_to_lock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), only_writer(tmp_path, "read"):
        pass
