"""One request and its answer in Tornado's server, and what is to be seen of them on their way.

Owns       the moments of an exchange: its head has come, its answer's head goes out, its answer has left.
Never      touches a byte: requests come from Tornado's connection and answers go to it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from bicorn.workers.gateway import Response

if TYPE_CHECKING:
    from bicorn.workers.tornado_server import Server
    from bicorn.workers.tornado_stream import ClientStream


class Exchange(HTTPMessageDelegate):
    """One request and its answer, from the wait for its head on."""

    delegate: HTTPMessageDelegate
    start_line: RequestStartLine
    headers: HTTPHeaders

    def __init__(self, server: Server, connection: Any) -> None:
        self._server = server
        self.connection = connection
        self.stream: ClientStream = connection.stream
        self.has_begun = False
        self.forwarded_scheme: str | None = None
        self.began_at = 0.0
        self.answer: Response | None = None
        self.seen: Any = None  # Any: the observer's

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Awaitable[None] | None:
        """Begin: the head has come."""
        self.start_line, self.headers = start_line, headers
        self.has_begun, self.began_at = True, time.perf_counter()
        self._server.begun(self)
        context = self.connection.context
        own, context.protocol = context.protocol, self.forwarded_scheme or context.protocol
        try:
            # The request object, which keeps the scheme, is made in here.
            return self.delegate.headers_received(start_line, headers)
        finally:
            context.protocol = own

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Pass on a piece of the body."""
        return self.delegate.data_received(chunk)

    def finish(self) -> None:
        """Pass on that the request is complete."""
        self.delegate.finish()

    def on_connection_close(self) -> None:
        """Pass on that the rest will not come."""
        self.delegate.on_connection_close()

    def answered(self, start_line: ResponseStartLine, headers: HTTPHeaders) -> None:
        """Take note of the answer's head, which is about to be sent."""
        if self._server.is_draining:
            headers["Connection"] = "close"
            self.stream.is_dismissed = True
        if start_line.code == 204:  # Tornado's container writes a length, which a 204 must not have (RFC 9110, 8.6).
            headers.pop("Content-Length", None)
        if start_line.code >= 200:
            self.answer = Response(f"{start_line.code} {start_line.reason}", list(headers.get_all()), 0)

    def sent(self, count: int) -> None:
        """Count bytes of the answer's body."""
        if self.answer is not None:
            self.answer.sent += count

    def finished(self) -> None:
        """Take note that the application has given all of its answer."""
        self.stream.free()


class AnswerConnection(HTTPConnection):
    """The connection as the application sees it: Tornado's, with a look at what is written."""

    def __init__(self, connection: HTTPConnection, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:  # Any: whatever Tornado's connection has
        return getattr(self._connection, name)

    def write_headers(self, start_line: Any, headers: HTTPHeaders, chunk: bytes | None = None) -> Any:
        """Send the head."""
        self._exchange.answered(start_line, headers)
        self._exchange.sent(len(chunk or b""))
        return self._connection.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> Any:
        """Send a piece of the body."""
        self._exchange.sent(len(chunk))
        return self._connection.write(chunk)

    def finish(self) -> None:
        """End the answer."""
        self._connection.finish()
        self._exchange.finished()
