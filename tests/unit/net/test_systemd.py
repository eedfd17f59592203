"""What systemd passes in the environment, and what it is told."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bicorn.errors import ConfigError
from bicorn.net.systemd import notify, take_listen_fds


def test_descriptors_are_taken_once() -> None:
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert take_listen_fds(environ, 7) == (3, 4)
    assert environ == {"HOME": "/"}
    assert take_listen_fds(environ, 7) == ()


@pytest.mark.parametrize("environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "8"}])
def test_what_is_meant_for_another_process_is_left_alone(environ: dict[str, str]) -> None:
    before = dict(environ)
    assert take_listen_fds(environ, 7) == ()
    assert environ == before


def test_a_count_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS is 'many'"):
        take_listen_fds({"LISTEN_PID": "7", "LISTEN_FDS": "many"}, 7)


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_reaches_the_notify_socket(tmp_path: Path, abstract: bool) -> None:
    path = f"\0bicorn-notify-{os.getpid()}" if abstract else os.path.relpath(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        assert notify("READY=1", {"NOTIFY_SOCKET": path.replace("\0", "@")})
        assert manager.recv(100) == b"READY=1"


def test_without_systemd_nothing_is_sent() -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "/nowhere/at/all"})
