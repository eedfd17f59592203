"""The pid file, on a real disk."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bicorn.arbiter.pidfile import Pidfile, PidfileError


def test_it_holds_the_pid_and_can_be_read_by_all(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    Pidfile(str(path)).create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["999999999\n", "", "not a pid", "99999999999999999999999", "0", "-1"])
def test_what_names_no_living_process_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pid"
    path.write_text(content)
    Pidfile(str(path)).create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_living_process_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(PidfileError, match=f"already running on PID {os.getppid()}"):
        Pidfile(str(path)).create(os.getpid())


def test_a_process_that_began_after_the_file_was_written_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")
    os.utime(path, (0, 0))  # Before the last boot.
    Pidfile(str(path)).create(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"


def test_only_our_own_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile = Pidfile(str(path))
    pidfile.create(os.getpid())
    path.write_text("1\n")
    pidfile.unlink()
    assert path.exists()
    path.write_text(f"{os.getpid()}\n")
    pidfile.unlink()
    assert not path.exists()


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PidfileError, match=r"cannot write in .*nowhere"):
        Pidfile(str(tmp_path / "nowhere" / "pid")).create(os.getpid())


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
    for path in (tmp_path, tmp_path / "socket"):
        with pytest.raises(PidfileError, match="something that is not a file is in the way"):
            Pidfile(str(path)).create(os.getpid())
    assert (tmp_path / "socket").is_socket()
    (tmp_path / "file").touch()
    with pytest.raises(PidfileError, match="Not a directory"):
        Pidfile(str(tmp_path / "file" / "pid")).create(os.getpid())


def test_a_disk_without_room_is_named_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("stale")
    with full_disk(), pytest.raises(PidfileError, match=r"pid': cannot write in .*: File too large"):
        Pidfile(str(tmp_path / "pid")).create(os.getpid())
    assert os.listdir(tmp_path) == ["pid"]
    assert (tmp_path / "pid").read_text() == "stale"


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let files be made, but nothing be written to them (RLIMIT_FSIZE, setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
