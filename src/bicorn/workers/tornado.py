"""The `tornado` worker: Tornado's own HTTP server, for Tornado applications and, in its container, WSGI ones.

Owns       the event loop of the process, what ends it, and what Tornado's server is told of our settings.
Never      reads or writes a client's bytes: Tornado does, by its own rules for HTTP.
Invariant  the worker leaves when every exchange that had begun has ended, or graceful_timeout after it was told to.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

from tornado.httputil import HTTPHeaders, HTTPServerConnectionDelegate, HTTPServerRequest, ResponseStartLine
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import Application
from tornado.wsgi import WSGIContainer

from bicorn.app.interface import Interface, require_wsgi
from bicorn.net.tls import make_context
from bicorn.workers.accepting import Acceptor
from bicorn.workers.base import Worker
from bicorn.workers.gateway import ErrorStream
from bicorn.workers.incidents import Incidents
from bicorn.workers.tornado_server import Observer, Server

#: Tornado wants a number; no body is longer (RFC 9110 leaves the length open, our own parser stops here as well).
NO_LIMIT: Final = 2**63 - 1


class TornadoWorker(Worker):
    """Serves from Tornado's event loop."""

    # Tornado applications are no WSGI applications, so what it is gets looked at after it is loaded.
    INTERFACE: ClassVar[Interface | None] = None
    SAYS_READY: ClassVar[bool] = True

    ioloop: IOLoop
    server: Server
    acceptor: Acceptor

    def init_process(self) -> None:
        # A loop that the configuration or a preloaded application made is the arbiter's: its epoll descriptor would be
        # shared between processes. The new one is there before the application is loaded, which may start timers.
        asyncio.set_event_loop(asyncio.new_event_loop())
        self.ioloop = IOLoop.current()
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Here rather than in run(): a certificate that cannot be read is a failure to boot.
        self.tls = make_context(self.cfg) if self.cfg.is_ssl else None
        if not _is_tornados(self.wsgi):
            assert self.wsgi is not None, "it was just loaded"
            require_wsgi(self.wsgi, self.cfg.app_uri or "", self.cfg.worker_class_str)

    def run(self) -> None:
        loop = asyncio.get_event_loop_policy().get_event_loop()
        self._over = asyncio.Event()
        self.server = self._make_server()
        self.acceptor = self._make_acceptor(loop)
        self.server.accept_with(self.acceptor)
        heartbeat = PeriodicCallback(self.notify, self.heartbeat_interval * 1000)
        heartbeat.start()
        loop.add_reader(self.PIPE[0], self._wake)
        if self.lifeline >= 0:
            loop.add_reader(self.lifeline, self._lose_arbiter)
        self.mark_ready()
        loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        if self.alive:
            await self._over.wait()
        await self._drain()

    def _make_server(self) -> Server:
        cfg = self.cfg
        server = Server(
            self._application(),
            no_keep_alive=cfg.keepalive == 0,
            ssl_options=self.tls,
            max_header_size=cfg.limit_request_head,
            max_body_size=cfg.limit_request_body or NO_LIMIT,
            # Tornado has one bound for an idle connection and for a head that is on its way.
            idle_connection_timeout=max(cfg.keepalive, cfg.header_timeout) if cfg.header_timeout else None,
        )
        server.observe(self._observer(), self._count_request)
        server.trust(cfg.forwarded_allow_ips, cfg.secure_scheme_headers)
        return server

    def _make_acceptor(self, loop: asyncio.AbstractEventLoop) -> Acceptor:
        sockets = [listener.sock for listener in self.sockets]
        failed = Incidents(self.log).accept_failed
        return Acceptor(loop, sockets, self.server.take, failed, is_alone=self.cfg.workers == 1)

    def _application(self) -> HTTPServerConnectionDelegate | Callable[[HTTPServerRequest], None]:
        app: Any = self.wsgi
        if _is_tornados(app):
            if self.cfg.threads > 1:
                self.log.info("threads = %s has no effect: a Tornado application runs in its loop", self.cfg.threads)
            return app  # type: ignore[no-any-return]  # _is_tornados() said so
        executor = ThreadPoolExecutor(self.cfg.threads, "wsgi") if self.cfg.threads > 1 else None
        return Container(app, self, executor)

    def _observer(self) -> Observer | None:
        """Give who looks at each request, if anybody does: a hook, or the access log."""
        cfg = self.cfg
        hooked = not (cfg.is_default("pre_request") and cfg.is_default("post_request"))
        debugging = self.log.error_log.isEnabledFor(logging.DEBUG)
        return Observer(self) if hooked or debugging or self.log.access_log_enabled else None

    # -- the end -------------------------------------------------------------------------------

    def _wake(self) -> None:
        """A signal was handled; perhaps it ended the worker."""
        os.read(self.PIPE[0], 4096)
        if not self.alive:
            self._over.set()

    def _lose_arbiter(self) -> None:
        self.ioloop.remove_handler(self.lifeline)
        self.log.info("Parent changed, shutting down: %s", self)
        self.alive = False
        self._over.set()

    def _count_request(self) -> None:
        self.nr += 1
        if self.nr == self.max_requests:
            self.log.info("Autorestarting worker after current request.")
            self.ask_for_successor(f"it has served {self.max_requests} requests (max_requests)")

    async def _drain(self) -> None:
        self.server.stop()
        # Siblings would take what waits, unless the server stops, or the address is given up: nobody says so.
        self.acceptor.accept_waiting()
        await asyncio.sleep(0)  # Tornado makes them known to the server in a turn of their own.
        for listener in self.sockets:
            listener.close()
        try:
            await asyncio.wait_for(self.server.drain(), self.cfg.graceful_timeout)
        except asyncio.TimeoutError:
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)


class Container(WSGIContainer):
    """Tornado's container, with an answer for an application that fails."""

    def __init__(self, app: Any, worker: TornadoWorker, executor: ThreadPoolExecutor | None) -> None:
        super().__init__(_fitting(app), executor)
        self._worker = worker
        self._errors = ErrorStream(worker.cfg.errorlog)

    async def handle_request(self, request: HTTPServerRequest) -> None:
        """Answer, with 500 if the application raises: Tornado would leave the client waiting."""
        try:
            await super().handle_request(request)
        except Exception as error:
            self._worker.log.error("Error handling request %s %s", request.method, request.uri, exc_info=error)
            _refuse(request)

    def environ(self, request: HTTPServerRequest) -> dict[str, Any]:
        """Give Tornado's environ, with what the other worker classes have in theirs."""
        environ: dict[str, Any] = super().environ(request)
        environ["RAW_URI"] = request.uri
        environ["SERVER_SOFTWARE"] = os.environ["SERVER_SOFTWARE"]
        environ["wsgi.errors"] = self._errors
        environ["wsgi.multiprocess"] = self._worker.cfg.workers > 1
        return environ


def _fitting(app: Any) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """The application, with answers as Tornado takes them: it refuses what other servers mend."""

    def fitting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        fields: list[tuple[str, str]] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            fields[:] = [(name, value.strip(" \t")) for name, value in headers]  # Django begins cookies with a space.
            return start_response(status, fields, exc_info)

        body: Iterable[bytes] = app(environ, start)
        return _without_body(body, fields) if environ["REQUEST_METHOD"] == "HEAD" else body

    return fitting


def _without_body(body: Iterable[bytes], fields: list[tuple[str, str]]) -> Iterable[bytes]:
    """Give nothing in the body's place, and leave its length in the fields."""
    try:
        length = sum(map(len, body))
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    if not any(name.lower() == "content-length" for name, _ in fields):
        fields.append(("Content-Length", str(length)))
    return []


def _refuse(request: HTTPServerRequest) -> None:
    # The container writes head and body at once and as its last act, so nothing has been sent yet.
    connection: Any = request.connection
    status = ResponseStartLine("HTTP/1.1", 500, "Internal Server Error")
    connection.write_headers(status, HTTPHeaders({"Content-Length": "0"}))
    connection.finish()


def _is_tornados(app: object) -> bool:
    return isinstance(app, (Application, WSGIContainer, HTTPServerConnectionDelegate))
