"""Tornado's HTTP server, with the counting that a graceful end needs and the hooks that Gunicorn's users have.

Owns       which connections are open, which of them serve an exchange, and who looks at the exchanges.
Never      touches a byte: requests come from Tornado's connection and answers go to it.
Invariant  a connection is in `_exchanges` from Tornado's first call for it to its last; what it maps to is the exchange
           that is under way on it, or the one that will begin with the next head.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from bicorn.workers.gateway import Request, Response

if TYPE_CHECKING:
    from bicorn.workers.accepting import Acceptor
    from bicorn.workers.base import Worker

#: How long an idle connection of a draining worker stays open; as in the native loop.
DRAIN_IDLE_TIMEOUT_S: Final = 0.2


class Server(HTTPServer):
    """Tornado's server."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Be Tornado's, and know no connections yet."""
        super().initialize(*args, **kwargs)
        self._exchanges: dict[object, Exchange] = {}
        self._is_empty: asyncio.Event = asyncio.Event()
        self._is_draining = False
        self._observer: Observer | None = None
        self._begun: Callable[[], None] = lambda: None
        self._trusted: Trust = Trust([], {})

    def observe(self, observer: Observer | None, begun: Callable[[], None]) -> None:
        """Show every exchange to the observer; `begun` is called for each request."""
        self._observer, self._begun = observer, begun

    def accept_with(self, acceptor: Acceptor) -> None:
        """Take connections from this acceptor; it is stopped with the server. Tornado's own handler would spin."""
        self._acceptor = acceptor
        acceptor.start()

    def take(self, connection: socket.socket, address: object, _listener: int = 0) -> None:
        """Serve a connection."""
        self._handle_connection(connection, address)

    def stop(self) -> None:
        """Accept no more."""
        self._acceptor.stop()

    def trust(self, proxies: Sequence[str], scheme_fields: Mapping[str, object]) -> None:
        """Believe these peers, and every peer on a unix socket, which scheme their client used."""
        self._trusted = Trust(proxies, scheme_fields)

    # -- what Tornado calls --------------------------------------------------------------------

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Begin to wait for a head; the exchange before it on this connection has ended."""
        self._end(server_conn)
        exchange = Exchange(self, request_conn)
        self._exchanges[server_conn] = exchange
        exchange.delegate = super().start_request(server_conn, AnswerConnection(request_conn, exchange))
        if self._is_draining:
            self._close_soon(server_conn, exchange)
        return exchange

    def on_close(self, server_conn: object) -> None:
        """Forget a connection that was closed, or that the application took over."""
        self._end(server_conn)
        if not self._exchanges:
            self._is_empty.set()
        super().on_close(server_conn)

    def _end(self, server_conn: object) -> None:
        ended = self._exchanges.pop(server_conn, None)
        if ended is not None and ended.has_begun and self._observer is not None:
            self._observer.left(ended)

    # -- what an exchange calls ----------------------------------------------------------------

    def begun(self, exchange: Exchange) -> None:
        """Count a request whose head has come, and show it to who looks."""
        exchange.forwarded_scheme = self._trusted.scheme_of(exchange)
        self._begun()
        if self._observer is not None:
            self._observer.entered(exchange)

    @property
    def is_draining(self) -> bool:
        """Whether answers have to say that they are the last on their connection."""
        return self._is_draining

    # -- the end -------------------------------------------------------------------------------

    def begin_drain(self) -> None:
        """Close every connection: idle ones a moment from now, others after their answer."""
        if self._is_draining:
            return
        self._is_draining = True
        self.conn_params.no_keep_alive = True
        for server_conn, exchange in self._exchanges.items():
            self._close_soon(server_conn, exchange)

    async def drain(self) -> None:
        """Wait until every connection is closed."""
        self.begin_drain()
        if self._exchanges:
            self._is_empty.clear()
            await self._is_empty.wait()

    def _close_soon(self, server_conn: object, exchange: Exchange) -> None:
        asyncio.get_running_loop().call_later(DRAIN_IDLE_TIMEOUT_S, self._close_idle, server_conn, exchange)

    @staticmethod
    def _close_idle(server_conn: Any, exchange: Exchange) -> None:
        if not exchange.has_begun:
            server_conn.stream.close()


class Exchange(HTTPMessageDelegate):
    """One request and its answer, from the wait for its head on."""

    delegate: HTTPMessageDelegate
    start_line: RequestStartLine
    headers: HTTPHeaders

    def __init__(self, server: Server, connection: Any) -> None:
        self._server = server
        self.connection = connection
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
        if start_line.code == 204:  # Tornado's container writes a length, which a 204 must not have (RFC 9110, 8.6).
            headers.pop("Content-Length", None)
        if start_line.code >= 200:
            self.answer = Response(f"{start_line.code} {start_line.reason}", list(headers.get_all()), 0)

    def sent(self, count: int) -> None:
        """Count bytes of the answer's body."""
        if self.answer is not None:
            self.answer.sent += count


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


class Trust:
    """Which peers are believed when they say that their client came by https."""

    def __init__(self, proxies: Sequence[str], scheme_fields: Mapping[str, object]) -> None:
        self._is_anybody = "*" in proxies
        self._networks = [ipaddress.ip_network(proxy) for proxy in proxies if proxy != "*"]
        self._fields = {name.title(): value for name, value in scheme_fields.items()}

    def scheme_of(self, exchange: Exchange) -> str | None:
        """Give the scheme that the peer vouches for, if it says one and is believed."""
        said = [value for name, value in self._fields.items() if exchange.headers.get(name) == value]
        return "https" if said and self._believes(exchange.connection.context.address) else None

    def _believes(self, address: object) -> bool:
        if self._is_anybody or not isinstance(address, tuple):
            return True
        peer = ipaddress.ip_address(address[0])
        return any(peer in network for network in self._networks)


class Observer:
    """Calls the hooks and writes the access log; there is one only if somebody looks."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def entered(self, exchange: Exchange) -> None:
        """Call pre_request."""
        environ = environ_of(exchange)
        request = Request.of(environ)
        exchange.seen = request, environ
        self._worker.cfg.pre_request(self._worker, request)

    def left(self, exchange: Exchange) -> None:
        """Write the access line and call post_request."""
        if exchange.seen is None:
            return  # pre_request raised.
        request, environ = exchange.seen
        answer = exchange.answer or Response("500 Internal Server Error", [], 0, headers_sent=False)
        worker = self._worker
        worker.log.access(answer, request, environ, timedelta(seconds=time.perf_counter() - exchange.began_at))
        try:
            worker.cfg.post_request(worker, request, environ, answer)
        except Exception:
            worker.log.exception("Exception in post_request hook")


def environ_of(exchange: Exchange) -> dict[str, Any]:
    """The request as the hooks and the access log of every worker class know it; nothing of WSGI's own is in it."""
    line, address = exchange.start_line, exchange.connection.context.address
    path, _, query = line.path.partition("?")
    environ = {
        "REQUEST_METHOD": line.method,
        "RAW_URI": line.path,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": line.version,
        "wsgi.url_scheme": exchange.forwarded_scheme or exchange.connection.context.protocol,
        "wsgi.input": None,
        "REMOTE_ADDR": address[0] if isinstance(address, tuple) else "",
        **({"REMOTE_PORT": str(address[1])} if isinstance(address, tuple) else {}),
    }
    for name, value in exchange.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ
