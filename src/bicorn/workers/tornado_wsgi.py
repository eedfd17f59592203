"""A WSGI application in Tornado's container. Its connection sends whatever it is given: here, what may be sent.

Owns       the answer of one WSGI application until it is whole, and what PEP 3333 and HTTP ask of it.
Never      sends a part: head and body leave at once, as the last act.
Invariant  a body is as long as the head says, or shorter, and there is none where the status or a HEAD forbids it: else
           the client would take the rest of it for the answer to its next request.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import tornado
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine, format_timestamp
from tornado.log import access_log
from tornado.wsgi import WSGIContainer

from bicorn._core import Deadline, FileWrapper
from bicorn.workers.gateway import ErrorStream
from bicorn.workers.tornado_bounds import ASK_AFTER_NS, NotRun

if TYPE_CHECKING:
    from bicorn.workers.base import Worker
    from bicorn.workers.tornado_exchange import Exchange

#: A status that ends a request (a 1xx does not: RFC 9110, 15.2) and a reason without controls.
STATUS = re.compile(r"([2-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?", re.ASCII)

#: Fields about the connection, which PEP 3333 forbids to applications; the native loop drops the same.
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)

#: What Tornado's container says of itself.
SERVER = f"TornadoServer/{tornado.version}"

#: Statuses whose answers have no body (RFC 9112, 6.3).
WITHOUT_BODY = (204, 304)


class Container(WSGIContainer):
    """Tornado's container, with an answer for an application that fails.

    Tornado's own takes three turns of the loop for each request, for threads that are not there by default.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], worker: Worker, executor: ThreadPoolExecutor | None
    ) -> None:
        super().__init__(app, executor)
        self._worker = worker
        self._errors = ErrorStream(worker.cfg.errorlog)
        # `timeout` is the loop's here, not a request's, so there is none to extend.
        self._deadline = Deadline(watched=False)
        self._threads = executor
        self._loop = asyncio.get_event_loop_policy().get_event_loop()

    def __call__(self, request: HTTPServerRequest) -> None:
        """Serve a request."""
        if self._threads is not None:
            super().__call__(request)  # As a task.
        else:
            # Not now: nobody else would have a turn before all requests that a client has sent ahead are answered.
            self._loop.call_soon(self._serve, request)

    def _serve(self, request: HTTPServerRequest) -> None:
        try:
            self._send(request, self._answer_to(self.environ(request), _exchange_of(request)))
        except Exception as error:  # noqa: BLE001 - told below
            self._fail(request, error)

    async def handle_request(self, request: HTTPServerRequest) -> None:
        """Answer, with 500 if the application raises: Tornado would leave the client waiting."""
        try:
            called = self.environ(request), _exchange_of(request)
            self._send(request, await self._loop.run_in_executor(self._threads, self._answer_to, *called))
        except Exception as error:  # noqa: BLE001 - told below
            self._fail(request, error)

    def _fail(self, request: HTTPServerRequest, error: Exception) -> None:
        if isinstance(error, NotRun):
            _exchange_of(request).dismiss(error)
        else:
            self._worker.log.error("Error handling request %s %s", request.method, request.uri, exc_info=error)
            _refuse(request)

    def _answer_to(self, environ: dict[str, Any], exchange: Exchange) -> _Whole:
        """Call the application, unless nobody waits for its answer any more."""
        self._judge(exchange)
        exchange.enter()
        answer = _Answer()
        try:
            answer.collect(self.wsgi_application(environ, answer.start_response))
        except (StopIteration, GeneratorExit) as error:
            # No Future takes the one, no task survives the other: the client would wait for ever.
            raise RuntimeError(f"the application raised {type(error).__name__}") from error
        return answer.of(environ["REQUEST_METHOD"])

    def _send(self, request: HTTPServerRequest, answer: _Whole) -> None:
        connection: Any = request.connection
        connection.write_headers(ResponseStartLine("HTTP/1.1", answer.code, answer.reason), answer.fields, answer.body)
        connection.finish()
        if answer.code >= 400 or access_log.isEnabledFor(logging.INFO):
            self._log(answer.code, request)

    def environ(self, request: HTTPServerRequest) -> dict[str, Any]:
        """Give Tornado's environ, with what the other worker classes have in theirs."""
        environ: dict[str, Any] = super().environ(request)
        environ["RAW_URI"] = request.uri
        address = request.connection.context.address  # type: ignore[union-attr]  # Tornado's server put it there
        if isinstance(address, tuple):
            environ["REMOTE_PORT"] = str(address[1])
        environ["SERVER_SOFTWARE"] = os.environ["SERVER_SOFTWARE"]
        environ["wsgi.errors"] = self._errors
        environ["wsgi.multiprocess"] = self._worker.cfg.workers > 1
        environ["wsgi.input_terminated"] = True
        environ["wsgi.file_wrapper"] = FileWrapper
        environ["bicorn.deadline"] = self._deadline
        return environ

    def _judge(self, exchange: Exchange) -> None:
        """Raise NotRun for a request that has waited too long for its turn, or for its thread."""
        if time.monotonic_ns() - exchange.ready_ns <= ASK_AFTER_NS:
            return
        if self._threads is None:
            exchange.judge()
        else:
            # In the loop's thread, which may close the socket at any time.
            asyncio.run_coroutine_threadsafe(_judge(exchange), self._loop).result()


async def _judge(exchange: Exchange) -> None:
    exchange.judge()


def _exchange_of(request: HTTPServerRequest) -> Exchange:
    connection: Any = request.connection
    exchange: Exchange = connection.exchange
    return exchange


class _Whole(NamedTuple):
    """An answer that may be sent."""

    code: int
    reason: str
    fields: HTTPHeaders
    body: bytes


class _Answer:
    """What the application has said so far."""

    def __init__(self) -> None:
        self._head: tuple[int, str, list[tuple[str, str]]] | None = None
        self._blocks: list[bytes] = []

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """`start_response` of PEP 3333; nothing is ever sent when it is called."""
        if self._head is not None and exc_info is None:
            raise AssertionError("start_response() was called a second time without exc_info (PEP 3333)")
        read = STATUS.fullmatch(status)
        if read is None:
            raise ValueError(f"invalid status {status!r}: it must read like '200 OK', and end the request")
        # Django begins cookies with a space.
        fields = [(name, value.strip(" \t")) for name, value in headers if name.lower() not in HOP_BY_HOP]
        self._head = int(read[1]), read[2] or "", fields
        return self._blocks.append

    def collect(self, blocks: Iterable[bytes]) -> None:
        """Take in what the application gives, and close it."""
        try:
            self._blocks.extend(blocks)
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def of(self, method: str) -> _Whole:
        """The answer to a request with this method."""
        if self._head is None:
            raise RuntimeError("the application never called start_response()")
        code, reason, given = self._head
        body = b"".join(self._blocks)
        fields = HTTPHeaders()
        for name, value in given:
            fields.add(name, value)
        if "Server" not in fields:
            fields["Server"] = SERVER
        if "Date" not in fields:
            fields["Date"] = _http_date(int(time.time()))
        if "Content-Type" not in fields and code != 304:
            fields["Content-Type"] = "text/html; charset=UTF-8"
        if code == 204:  # It may say no length (RFC 9110, 8.6).
            fields.pop("Content-Length", None)
        if code in WITHOUT_BODY:
            body = b""
        elif "Content-Length" not in fields:
            fields["Content-Length"] = str(len(body))
        if method == "HEAD":
            body = b""
        promised = fields.get("Content-Length", "")
        if promised.isascii() and promised.isdigit() and int(promised) < len(body):
            body = body[: int(promised)]
        return _Whole(code, reason, fields, body)


@functools.lru_cache(maxsize=1)
def _http_date(second: int) -> str:
    return format_timestamp(second)


def _refuse(request: HTTPServerRequest) -> None:
    # The container writes head and body at once and as its last act, so nothing has been sent yet.
    connection: Any = request.connection
    status = ResponseStartLine("HTTP/1.1", 500, "Internal Server Error")
    connection.write_headers(status, HTTPHeaders({"Content-Length": "0", "Date": format_timestamp(time.time())}))
    connection.finish()
