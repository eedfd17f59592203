"""Clients of a worker that has too much to do: they send, wait, and are sent away."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from harness.answers import Answer, AnswerReader
from harness.server import DEADLINE_S, Server

Connect = Callable[[Server], socket.socket]
GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"


def ask(sock: socket.socket, *paths: str) -> AnswerReader:
    """Send requests, and leave their answers for later."""
    sock.sendall(b"".join(GET % path.encode() for path in paths))
    return AnswerReader(sock)


def wait_for_nothing(sock: socket.socket, seconds: float = 0.8) -> None:
    """Let the request on this connection wait for so long, and its client with it."""
    sock.settimeout(seconds)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(DEADLINE_S)


def is_sent_away(answer: Answer) -> bool:
    """Whether an answer says that there is too much to do."""
    return (answer.status, answer.header("Retry-After"), answer.header("Connection")) == (503, "1", "close")
