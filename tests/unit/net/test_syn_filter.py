"""The filter that closes a listen queue to newcomers."""

from __future__ import annotations

import socket

import pytest

from bicorn.net.syn_filter import drop_new_connections


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_in_the_queue_is_served_and_nobody_else_gets_in(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.socket(family) as late,
        socket.create_connection(listener.getsockname()[:2]) as early,
    ):
        drop_new_connections(listener)
        late.settimeout(0.1)
        with pytest.raises(TimeoutError):
            late.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            early.sendall(b"still here")
            assert accepted.recv(100) == b"still here"
            accepted.sendall(b"and back")
            assert early.recv(100) == b"and back"


def test_a_unix_socket_is_left_as_it_is() -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("\0bicorn-test-syn-filter")
        listener.listen()
        drop_new_connections(listener)
        client.connect(listener.getsockname())
