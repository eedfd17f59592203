"""The other end of the control socket: one request, one answer.

Owns       the connection of a command, and how long it waits.
Never      retries: a command that was carried out twice would be worse than one that failed.
Invariant  a failure is a ControlClientError that says what to do, or the server's own Refused.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bicorn.errors import BicornError
from bicorn.observe.control_protocol import ANSWER_BYTES_MAX, Request, decode_answer, encode_request

_READ_BYTES: Final = 256 * 1024
_UCRED: Final = struct.Struct("iII")  # pid, uid, gid
_TIMEVAL: Final = struct.Struct("ll")


class ControlClientError(BicornError):
    """Nobody can be asked, or nobody answers."""


class ControlClient:
    """A connection to one server."""

    def __init__(self, sock: socket.socket, path: str, timeout: float) -> None:
        self._sock = sock
        self._path = path
        self._timeout = timeout

    @property
    def peer_pid(self) -> int:
        """The process that listens at the other end; 0 if it is in another pid namespace (unix(7), SO_PEERCRED)."""
        credentials = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(credentials)[0])

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Have a command carried out and give its result; raise Refused or ControlClientError."""
        self._send(encode_request(Request(command, arguments or {}, 1)))
        received = bytearray()
        for data in self._read(time.monotonic() + self._timeout):
            received += data
            if received.endswith(b"\n"):
                return decode_answer(bytes(received))
            if len(received) > ANSWER_BYTES_MAX:
                raise ControlClientError(f"{self._path}: the answer is longer than {ANSWER_BYTES_MAX} bytes")
        raise ControlClientError(f"{self._path}: the server hung up before it had answered; its log says why")

    def wait_for_end(self) -> None:
        """Wait until the server has gone."""
        for _ in self._read(time.monotonic() + self._timeout):
            continue

    def _send(self, line: bytes) -> None:
        try:
            self._sock.sendall(line)
        except OSError as error:
            raise ControlClientError(f"{self._path}: cannot send: {error.strerror or error}") from None

    def _read(self, deadline: float) -> Iterator[bytes]:
        while True:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._sock.settimeout(left)
                data = self._sock.recv(_READ_BYTES)
            except TimeoutError:
                raise ControlClientError(
                    f"{self._path}: not finished within {self._timeout:g} s; the server goes on with it, and "
                    "`bicornctl status` tells what came of it (--timeout waits longer)"
                ) from None
            except ConnectionError:
                return  # As good as the end of the stream.
            if not data:
                return
            yield data


@contextlib.contextmanager
def connect(path: str, timeout: float) -> Iterator[ControlClient]:
    """Open a connection to the server at this socket; `timeout` is for each answer, in seconds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        # Not settimeout(): that makes the socket non-blocking, for which a queue that is full for a moment is an error.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6)))
        try:
            sock.connect(path)
        except FileNotFoundError:
            raise ControlClientError(f"{path}: there is no such socket; is the server running?") from None
        except ConnectionRefusedError:
            raise ControlClientError(f"{path}: nobody answers; the server that made it is gone") from None
        except OSError as error:
            raise ControlClientError(f"{path}: cannot connect: {error.strerror or error}") from None
        yield ControlClient(sock, path, timeout)
