import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cnnkit.files import remove_leftovers, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_bytes_are_in_the_file_and_nothing_else_is_in_the_folder(tmp_path):
    write_whole(tmp_path / "a.bin", bytes(range(256)))
    assert (tmp_path / "a.bin").read_bytes() == bytes(range(256))
    assert names(tmp_path) == ["a.bin"]


def test_a_file_is_replaced_and_whoever_has_it_open_still_reads_the_old_one(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old and long")
    with path.open("rb") as reader:
        write_whole(str(path), b"new")
        assert reader.read() == b"old and long"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "write"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_after_a_failure_the_old_file_stands_and_no_other_is_left(tmp_path, monkeypatch, call, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(*_):
        raise error

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:

        class Full:
            def __init__(self, descriptor, _mode):
                self.descriptor = descriptor

            def __enter__(self):
                return self

            def __exit__(self, *_):
                os.close(self.descriptor)

            write = fail

        monkeypatch.setattr(os, "fdopen", Full)
    with pytest.raises(type(error)):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_the_data_is_forced_to_the_disk_before_it_takes_the_name_and_the_folder_after(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    seen = []
    real_fsync = os.fsync

    def fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = None if is_folder else os.fstat(descriptor).st_size
        seen.append(("folder" if is_folder else "file", size, path.exists()))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, b"12345")
    assert seen == [("file", 5, False), ("folder", None, True)]


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    killed = (
        "import os, signal, sys\n"
        "from cnnkit.files import remove_leftovers, write_whole\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_whole(sys.argv[1], b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"


def test_a_missing_folder_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "a.bin", b"new")
    assert names(tmp_path) == []


def test_a_folder_is_never_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == []


def test_what_is_not_a_regular_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        write_whole(tmp_path / "pipe", b"new")
    assert names(tmp_path) == ["pipe"]


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.bin").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a.bin")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a.bin").read_bytes() == b"new"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_whole(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_permissions_that_the_umask_gives(tmp_path):
    old = os.umask(0o027)
    try:
        write_whole(tmp_path / "a.bin", b"new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640


def test_what_a_kill_left_behind_is_removed_and_nothing_else(tmp_path, monkeypatch):
    write_whole(tmp_path / "kept", b"kept")
    monkeypatch.setattr(Path, "replace", lambda *_: os._exit(0))
    if (child := os.fork()) == 0:
        write_whole(tmp_path / "kept", b"new")
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"kept"
