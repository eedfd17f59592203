"""One request and its answer in Tornado's server, and what is to be seen of them on their way.

Owns       the moments of an exchange: its head has come, its answer's head goes out, its answer has left; and the
           answer to one that is not run.
Never      touches a byte: requests come from Tornado's connection and answers go to it.
Invariant  an application that has not heard of a request's head hears nothing else of it.
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
    format_timestamp,
)
from tornado.log import app_log

from bicorn.workers.gateway import Response
from bicorn.workers.tornado_bounds import NotRun

if TYPE_CHECKING:
    from bicorn.workers.tornado_server import Server
    from bicorn.workers.tornado_stream import ClientStream


#: In place of the status of a request that was never answered, as in the access log.
_CLIENT_LEFT = 499
#: Of an answer that has not begun.
NO_FIELDS = HTTPHeaders()


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
        #: The head of the answer, and how much of its body there has been.
        self.answer_line: ResponseStartLine | None = None
        self.answer_fields = NO_FIELDS
        self.answer_bytes = 0
        self.seen: Any = None  # Any: the observer's
        #: When all that was needed of the request had been read, on the monotonic clock.
        self.ready_ns = 0
        self._is_admitted = False
        self._not_run: NotRun | None = None
        self._is_read_slowly = False
        #: The application takes the body as it comes, so it has been called at the head.
        self._is_streamed = False

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Awaitable[None] | None:
        """Begin: the head has come."""
        self.start_line, self.headers = start_line, headers
        self.has_begun, self.began_at = True, time.perf_counter()
        self.stream.await_answer(start_line.method)
        self._take_time()
        try:
            self._admit()
        except NotRun as reason:
            self._not_run = reason
            # A client that asks whether it may send its body has its answer; others have theirs behind their body.
            if reason.why is None or headers.get("Expect") == "100-continue":
                self.dismiss(reason)
            return None
        self._server.begun(self)
        context = self.connection.context
        own, context.protocol = context.protocol, self.forwarded_scheme or context.protocol
        try:
            # The request object, which keeps the scheme, is made in here.
            prepared = self.delegate.headers_received(start_line, headers)
        finally:
            context.protocol = own
        self._is_streamed = prepared is not None
        if self._is_streamed and self._server.enters_at_once:
            self.enter()
        return prepared

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Pass on a piece of the body."""
        if self._not_run is not None:
            return None
        return self.delegate.data_received(chunk)

    def finish(self) -> None:
        """Pass on that the request is complete."""
        if self._not_run is not None:
            self.dismiss(self._not_run)
            return
        self._take_time()
        if self._server.turnstile is None or self._is_streamed:
            if self._server.enters_at_once and not self._is_streamed:
                self.enter()
            self.delegate.finish()
        else:
            self._server.turnstile.enter(self._start)

    def on_connection_close(self) -> None:
        """Pass on that the rest will not come."""
        if self._not_run is None:
            self.delegate.on_connection_close()

    def _start(self) -> None:
        """Call the application, unless the request has waited for too long by now."""
        try:
            if self.answer_line is None:
                self.judge()
                self.enter()
            self.delegate.finish()
        except NotRun as reason:
            self.delegate.on_connection_close()
            self.dismiss(reason)
        except Exception:  # noqa: BLE001 - logged and closed, as Tornado does with what a delegate raises
            app_log.exception("Uncaught exception")
            self.connection.close()

    def enter(self) -> None:
        """Take note that the application is about to be called."""
        if self._server.inside is not None:
            self._server.inside.enter(self)

    def end(self) -> None:
        """Take note that all is over."""
        self._leave()
        if self._is_admitted:
            self._server.bounds.leave()
        if self._is_read_slowly:
            self.stream.free()

    # -- requests that are not run -------------------------------------------------------------

    def _take_time(self) -> None:
        self.ready_ns = max(self.stream.read_ns, self.stream.freed_ns)

    def _admit(self) -> None:
        if self.stream.is_dismissed:
            raise NotRun(None)  # It was sent behind an answer that said that it was the last one.
        self._server.bounds.admit(self.stream, self.ready_ns)
        self._is_admitted = True

    def judge(self) -> None:
        """Raise NotRun if the request has waited for too long, or for nobody; in the loop's thread."""
        self._server.bounds.judge(self.stream, self.ready_ns)

    def dismiss(self, reason: NotRun) -> None:
        """End a request that is not run: its client learns why, or has gone."""
        if reason.why is None:
            self.stream.has_left = True
            self.connection.close()
        elif self.answer_line is None and not self.stream.closed():
            self._send_away(reason.why)

    def _send_away(self, why: str) -> None:
        address = self.connection.context.address
        self._server.bounds.tell_turned_away(address[0] if isinstance(address, tuple) else "", why)
        fields = {
            "Retry-After": "1",
            "Connection": "close",
            "Content-Length": "0",
            "Date": format_timestamp(time.time()),
        }
        answers = AnswerConnection(self.connection, self)
        written = answers.write_headers(ResponseStartLine("HTTP/1.1", 503, "Service Unavailable"), HTTPHeaders(fields))
        answers.finish()
        self.stream.is_dismissed = True
        if self.stream.writing():
            written.add_done_callback(lambda _: self.stream.close())
        else:
            self.stream.close()

    # -- the answer ----------------------------------------------------------------------------

    def answered(self, start_line: ResponseStartLine, headers: HTTPHeaders) -> None:
        """Take note of the answer's head, which is about to be sent."""
        self.stream.is_unanswered = start_line.code < 200
        if self._server.is_draining:
            headers["Connection"] = "close"
            self.stream.is_dismissed = True
        if start_line.code == 204:  # Tornado's container writes a length, which a 204 must not have (RFC 9110, 8.6).
            headers.pop("Content-Length", None)
        if start_line.code >= 200:
            self.answer_line, self.answer_fields = start_line, headers

    def response(self) -> Response:
        """Give what stands in the books, also where there was no answer."""
        if self.answer_line is not None:
            status = f"{self.answer_line.code} {self.answer_line.reason}"
            return Response(status, list(self.answer_fields.get_all()), self.answer_bytes)
        status = "499 Client Closed Request" if self.stream.has_left else "500 Internal Server Error"
        return Response(status, [], 0, headers_sent=False)

    def finished(self) -> None:
        """Take note that the application has given all of its answer."""
        self._leave()
        self.stream.free()
        self._is_read_slowly = self.stream.writing()

    def _leave(self) -> None:
        if self._server.inside is not None:
            self._server.inside.leave(self, self.answer_line.code if self.answer_line is not None else _CLIENT_LEFT)


class AnswerConnection(HTTPConnection):
    """The connection as the application sees it: Tornado's, with a look at what is written."""

    def __init__(self, connection: HTTPConnection, exchange: Exchange) -> None:
        self._connection = connection
        self.exchange = exchange
        self.context = connection.context  # type: ignore[attr-defined]  # asked for with each request

    def __getattr__(self, name: str) -> Any:  # Any: whatever Tornado's connection has
        return getattr(self._connection, name)

    def write_headers(self, start_line: Any, headers: HTTPHeaders, chunk: bytes | None = None) -> Any:
        """Send the head."""
        self.exchange.answered(start_line, headers)
        self.exchange.answer_bytes = len(chunk or b"")
        return self._connection.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> Any:
        """Send a piece of the body."""
        self.exchange.answer_bytes += len(chunk)
        return self._connection.write(chunk)

    def finish(self) -> None:
        """End the answer."""
        self._connection.finish()
        self.exchange.finished()
