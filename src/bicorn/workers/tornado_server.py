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
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerConnectionDelegate

from bicorn.workers.gateway import DRAIN_IDLE_TIMEOUT_S, Request, show_left
from bicorn.workers.tornado_bounds import Bounds, Turnstile
from bicorn.workers.tornado_exchange import AnswerConnection, Exchange
from bicorn.workers.tornado_inside import Inside
from bicorn.workers.tornado_stream import Came, ClientStream, TlsStream
from bicorn.workers.tornado_wsgi import Container

if TYPE_CHECKING:
    from bicorn._core import Handover, Lines, Slot
    from bicorn.workers.base import Worker


class Server(HTTPServer):
    """Tornado's server."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Be Tornado's, and know no connections yet."""
        super().initialize(*args, **kwargs)
        #: Connections that are open, WebSockets included.
        self.connections = 0
        #: What bounds its requests.
        self.bounds = Bounds()
        #: What they pass on their way to the application, if that is Tornado's and they may not wait for ever.
        self.turnstile: Turnstile | None = None
        self._exchanges: dict[HTTP1ServerConnection, Exchange] = {}
        self._is_empty: asyncio.Event = asyncio.Event()
        self._is_draining = False
        self._observer: Observer | None = None
        self._begun: Callable[[], None] = _nothing
        self._closed: Callable[[], None] = _nothing
        self._gave: Callable[[], None] = _nothing
        #: Connections that are still to be given away, and to whom.
        self._surplus = 0
        self._surplus_to: Handover | None = None
        self._give_idle_away: Callable[[], None] = _nothing
        self._trusted: Trust = Trust([], {})
        self._lines: Lines | None = None
        #: The requests that are inside the application, if anybody counts them.
        self.inside: Inside | None = None
        #: Whether a request is inside the application as soon as that hears of it: our container calls it later.
        self.enters_at_once = not isinstance(self.request_callback, Container)

    def show(self, slot: Slot) -> None:
        """Show on this row of the scoreboard what the application is busy with."""
        self.inside = Inside(slot)

    def watch(self, lines: Lines) -> None:
        """Have this table know the connections that are made from now on."""
        self._lines = lines

    def observe(self, observer: Observer | None, begun: Callable[[], None]) -> None:
        """Show every exchange to the observer; `begun` is called for each request."""
        self._observer, self._begun = observer, begun

    def bound(self, bounds: Bounds) -> None:
        """Bound the requests; none have come yet."""
        self.bounds = bounds
        # A WSGI application is called in the container, which asks by itself.
        is_tornados = isinstance(self.request_callback, HTTPServerConnectionDelegate)
        self.turnstile = Turnstile() if bounds.are_timed and is_tornados else None

    def tell_of(self, *, closed: Callable[[], None], gave: Callable[[], None]) -> None:
        """Call `closed` whenever a connection was closed, and `gave` when one more was given away."""
        self._closed, self._gave = closed, gave

    def trust(self, proxies: Sequence[str], scheme_fields: Mapping[str, object]) -> None:
        """Believe these peers, and every peer on a unix socket, which scheme their client used."""
        self._trusted = Trust(proxies, scheme_fields)

    # -- connections ---------------------------------------------------------------------------

    def take(self, connection: socket.socket, address: Any, came: Came) -> None:  # Any: of socket.accept()
        """Serve a connection."""
        try:
            stream = self._stream_of(connection, came)
        except OSError:  # The client has left before TLS could begin.
            connection.close()
            return
        self.connections += 1
        self.handle_stream(stream, address)

    def _stream_of(self, connection: socket.socket, came: Came) -> ClientStream:
        sizes = {"max_buffer_size": self.max_buffer_size, "read_chunk_size": self.read_chunk_size}
        if not isinstance(self.ssl_options, ssl.SSLContext):
            stream = ClientStream(connection, came, self._forget_stream, **sizes)
            if self._lines is not None:
                stream.line = self._lines.enter(connection.fileno(), came.listener)
            return stream
        secured = self.ssl_options.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return TlsStream(secured, came, self._forget_stream, **sizes)

    def _forget_stream(self) -> None:
        self.connections -= 1
        self._closed()

    def give_idle_away(self, queue: Handover, most: int | None = None) -> None:
        """Put the connections that are between two requests into the queue, as far as it takes them: all, or so many.

        A loop that is busy has seldom time to find one between two requests, so what is missing follows one by one.
        """
        movable = [idle for idle in self._idle() if idle[1].is_movable()][:most]
        given = 0
        while given < len(movable) and self._give_away(queue, *movable[given]):
            given += 1
        self._surplus = 0 if most is None else most - given
        self._surplus_to = queue

    @staticmethod
    def _give_away(queue: Handover, server_conn: HTTP1ServerConnection, stream: ClientStream) -> bool:
        address = server_conn.context.address  # type: ignore[attr-defined]  # Tornado's server put it there
        peer = (address[0], address[1]) if isinstance(address, tuple) else None
        if not queue.put(stream.socket.fileno(), stream.has_served, stream.listener, peer):
            return False
        # At once, so that nothing that comes now is read here.
        stream.close()
        return True

    def keep_the_rest(self) -> None:
        """Give no more away of what give_idle_away() was told to."""
        self._surplus = 0

    def _give_surplus_away(self, server_conn: HTTP1ServerConnection, stream: ClientStream) -> None:
        assert self._surplus_to is not None, "there is a surplus, so somebody wants it"
        if stream.has_served and stream.is_movable() and self._give_away(self._surplus_to, server_conn, stream):
            self._surplus -= 1
            self._gave()

    def close_idle(self, most: int) -> None:
        """Close up to so many connections that have had an answer and wait for their next request."""
        served = [stream for _, stream in self._idle() if stream.has_served]
        for stream in served[:most]:
            stream.close()

    def _idle(self) -> list[tuple[HTTP1ServerConnection, ClientStream]]:
        """Give the connections that are between two requests."""
        return [
            (server_conn, exchange.stream)
            for server_conn, exchange in self._exchanges.items()
            if not exchange.has_begun and exchange.stream.is_idle()
        ]

    # -- what Tornado calls --------------------------------------------------------------------

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Begin to wait for a head; the exchange before it on this connection has ended."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        self._end(server_conn)
        exchange = Exchange(self, request_conn)
        self._exchanges[server_conn] = exchange
        exchange.stream.rest()
        exchange.delegate = super().start_request(server_conn, AnswerConnection(request_conn, exchange))
        if self._is_draining:
            # In a turn of its own: the stream does not wait yet.
            asyncio.get_running_loop().call_soon(self._let_go, [exchange])
        elif self._surplus:
            self._give_surplus_away(server_conn, exchange.stream)
        return exchange

    def on_close(self, server_conn: object) -> None:
        """Forget a connection that was closed, or that the application took over."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        if server_conn in self._exchanges:
            self._exchanges[server_conn].stream.leave_alone()
        self._end(server_conn)
        if not self._exchanges:
            self._is_empty.set()
        super().on_close(server_conn)

    def _end(self, server_conn: HTTP1ServerConnection) -> None:
        ended = self._exchanges.pop(server_conn, None)
        if ended is None:
            return
        ended.end()
        if ended.has_begun and self._observer is not None:
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

    async def drain(self, give_idle_away: Callable[[], None]) -> None:
        """Wait until every connection is closed or given away: idle ones are soon, others after their answer."""
        self._give_idle_away = give_idle_away
        self._is_draining = True
        self.conn_params.no_keep_alive = True
        self._let_go(list(self._exchanges.values()))
        await self.wait_until_empty()

    async def wait_until_empty(self) -> None:
        """Wait until no connection is open, but WebSockets."""
        if self._exchanges:
            self._is_empty.clear()
            await self._is_empty.wait()

    def _let_go(self, exchanges: Iterable[Exchange]) -> None:
        """Give away what is idle; what has to stay is closed a moment later, if it is idle still."""
        self._give_idle_away()
        asyncio.get_running_loop().call_later(DRAIN_IDLE_TIMEOUT_S, self._close_idle, exchanges)

    def _close_idle(self, exchanges: Iterable[Exchange]) -> None:
        self._give_idle_away()  # The queue may have been full.
        for exchange in exchanges:
            if not exchange.has_begun and exchange.stream.is_idle():
                exchange.stream.close()


def _nothing() -> None:
    """Do nothing, where nobody asked for more."""


class Trust:
    """Which peers are believed when they say that their client came by https."""

    def __init__(self, proxies: Sequence[str], scheme_fields: Mapping[str, object]) -> None:
        self._is_anybody = "*" in proxies
        self._networks = [ipaddress.ip_network(proxy) for proxy in proxies if proxy != "*"]
        self._fields = {name.title(): value for name, value in scheme_fields.items()}

    def scheme_of(self, exchange: Exchange) -> str | None:
        """Give the scheme that the peer vouches for, if it says one and is believed."""
        fields = exchange.headers
        said = [name for name, value in self._fields.items() if name in fields and fields[name] == value]
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
            return  # pre_request raised, or the request was not run.
        request, environ = exchange.seen
        elapsed = timedelta(seconds=time.perf_counter() - exchange.began_at)
        show_left(self._worker, request, environ, exchange.response(), elapsed)


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
