"""Clients' connections as Tornado's streams, with what Tornado does not keep in mind of them.

Owns       where a connection came from, when bytes came in on it and when its last answer had left.
Never      interprets a byte.
Invariant  whatever is written passes the line, which somebody else may have shut; `closed` is called once for each
           stream, whoever closes it; a stream that is idle holds nothing of a request.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tornado.iostream import IOStream, SSLIOStream

if TYPE_CHECKING:
    from bicorn._core import Line


class Came(NamedTuple):
    """Where a connection came from."""

    #: The index of its listener.
    listener: int
    #: Another worker has served a request of it.
    served: bool


class ClientStream(IOStream):
    """A connection in the clear."""

    #: Whether others than this process can speak on it.
    IS_MOVABLE = True

    def __init__(self, connection: socket.socket, came: Came, closed: Callable[[], None], **sizes: Any) -> None:
        """`closed` is called when it is closed; `sizes` are Tornado's."""
        self.listener, self.has_served = came
        #: What is known of it who cannot run Python, where others than this process can speak on it.
        self.line: Line | None = None
        #: A request has come, and no answer to it has begun; what is written before is an interim one.
        self.is_unanswered = False
        #: The client has been told that the last answer was the last one.
        self.is_dismissed = False
        #: The client has ended its side, which Tornado takes for the end of both, or broken the connection off.
        self.has_left = False
        #: When its last bytes were read, and when its last answer had left, on the monotonic clock; 0 before.
        self.read_ns = self.freed_ns = 0
        self._tell_closed = closed
        super().__init__(connection, **sizes)

    def is_empty(self) -> bool:
        """Whether nothing was read that has not been used, and nothing is to be sent."""
        # Tornado has no word for the first.
        return self._read_buffer_size == 0 and not self.writing() and not self.closed()

    def is_idle(self) -> bool:
        """Whether it waits for a request of which nothing has been read."""
        return self.reading() and self.is_empty()

    def is_movable(self) -> bool:
        """Whether another worker can go on with it, if it is between two requests."""
        return self.IS_MOVABLE and not self.is_dismissed and self.is_empty()

    def rest(self) -> None:
        """Take note that it waits for the next request."""
        if self.line is not None:
            if not self.writing():
                self.line.reset()
            if self._read_buffer_size == 0:
                self.line.rest()

    def await_answer(self, method: str) -> None:
        """Take note that a request of this method has come, and nothing of its answer has been written."""
        self.is_unanswered = True
        if self.line is not None:
            self.line.set_bodiless(method == "HEAD")

    def leave_alone(self) -> None:
        """Take note that it has been taken over."""
        if self.line is not None:
            self.line.leave_alone()

    def free(self) -> None:
        """Take note that an answer has left."""
        self.has_served = True
        self.freed_ns = time.monotonic_ns()

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read, and keep in mind when that was."""
        try:
            count = super().read_from_fd(buf)
        except ConnectionError:
            self.has_left = True
            raise
        if count:
            self.read_ns = time.monotonic_ns()
            if self.line is not None:
                self.line.begin()
        elif count is not None:
            self.has_left = True
        return count

    def write(self, data: bytes | memoryview) -> Any:
        """Write, or keep it until the socket takes more."""
        written = super().write(data)
        if self.is_unanswered and self.line is not None and not self.writing():
            self.line.reset()
        return written

    def write_to_fd(self, data: memoryview) -> int:
        """Write, unless its client was answered in the application's place."""
        if self.line is not None and not self.line.may_write():
            raise BrokenPipeError(errno.EPIPE, "the client was sent away")
        return super().write_to_fd(data)

    def close_fd(self) -> None:
        """Close the socket."""
        if self.line is not None:
            self.line.leave()
            self.line = None
        super().close_fd()
        self._tell_closed()


class TlsStream(ClientStream, SSLIOStream):
    """A connection over TLS, whose keys stay in this process."""

    IS_MOVABLE = False
