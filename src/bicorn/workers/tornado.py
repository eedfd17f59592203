"""The `tornado` worker: Tornado's own HTTP server, for Tornado applications and, in its container, WSGI ones.

Owns       the event loop of the process, what ends it, and what Tornado's server is told of our settings.
Never      reads or writes a client's bytes: Tornado does, by its own rules for HTTP.
Invariant  the worker leaves when every exchange that had begun has ended, or graceful_timeout after it was told to.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from tornado.httputil import HTTPServerConnectionDelegate, HTTPServerRequest
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import Application
from tornado.wsgi import WSGIContainer

from bicorn.app.interface import Interface, require_wsgi
from bicorn.net.tls import make_context
from bicorn.workers.accepting import ACCEPT_REST_S
from bicorn.workers.base import Worker
from bicorn.workers.incidents import Incidents
from bicorn.workers.siblings import Siblings
from bicorn.workers.thread_pool import ThreadPool
from bicorn.workers.tornado_bounds import Bounds
from bicorn.workers.tornado_listening import Listening
from bicorn.workers.tornado_server import Observer, Server
from bicorn.workers.tornado_wsgi import Container
from bicorn.workers.watched import watched_lines

if TYPE_CHECKING:
    from bicorn._core import Lines
    from bicorn.config import Settings

#: Tornado wants a number; no body is longer (RFC 9110 leaves the length open, our own parser stops here as well).
NO_LIMIT: Final = 2**63 - 1
#: Idle connections that are closed to make room when descriptors have run out; as in the native loop.
EVICTIONS: Final = 16


class TornadoWorker(Worker):
    """Serves from Tornado's event loop."""

    # Tornado applications are no WSGI applications, so what it is gets looked at after it is loaded.
    INTERFACE: ClassVar[Interface | None] = None
    SAYS_READY: ClassVar[bool] = True

    ioloop: IOLoop
    incidents: Incidents
    listening: Listening
    server: Server
    lines: Lines | None = None

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

    @classmethod
    def require_served(cls, app: Callable[..., object], cfg: Settings) -> None:
        """Refuse what is neither Tornado's own nor WSGI."""
        if not _is_tornados(app):
            require_wsgi(app, cfg.app_uri or "", cfg.worker_class_str)

    def run(self) -> None:
        loop = asyncio.get_event_loop_policy().get_event_loop()
        self._over = asyncio.Event()
        self.incidents = Incidents(self.log)
        self.server = self._make_server()
        self.lines = watched_lines(self)
        self.server.watch(self.lines)
        self.listening = Listening(
            loop, self.sockets, self.server, self._siblings(loop), self.cfg, self.log, self._accept_failed
        )
        self.listening.start()
        self._beat_due = self.ioloop.time() + self.heartbeat_interval
        heartbeat = PeriodicCallback(self._beat, self.heartbeat_interval * 1000)
        heartbeat.start()
        loop.add_reader(self.PIPE[0], self._wake)
        if self.lifeline >= 0:
            loop.add_reader(self.lifeline, self._lose_arbiter)
        self.mark_ready()
        loop.run_until_complete(self._serve())

    def _beat(self) -> None:
        """Show that the loop turns, and what it holds."""
        self.notify()
        now = self.ioloop.time()
        if self.slot is not None:
            self.slot.connections = self.server.connections
            self.slot.loop_lag_us = max(0, int((now - self._beat_due) * 1e6))
        self._beat_due = now + self.heartbeat_interval
        self.listening.balance()

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
        if self.slot is not None:
            server.show(self.slot)
        server.bound(Bounds(cfg.queue_timeout, cfg.limit_concurrency, self.incidents.request_turned_away))
        server.trust(cfg.forwarded_allow_ips, cfg.secure_scheme_headers)
        return server

    def _siblings(self, loop: asyncio.AbstractEventLoop) -> Siblings | None:
        if self.handover is None or self.slot is None or self.tls is not None:
            return None
        return Siblings(loop, self.slot, self.handover, self.sockets, self._accept_failed)

    def _application(self) -> HTTPServerConnectionDelegate | Callable[[HTTPServerRequest], None]:
        app: Any = self.wsgi
        if _is_tornados(app):
            if self.cfg.threads > 1:
                self.log.info("threads = %s has no effect: a Tornado application runs in its loop", self.cfg.threads)
            return app  # type: ignore[no-any-return]  # _is_tornados() said so
        executor = ThreadPool(self.cfg.threads, self.log) if self.cfg.threads > 1 else None
        return Container(app, self, executor)

    def _observer(self) -> Observer | None:
        """Give who looks at each request, if anybody does: a hook, or the access log."""
        cfg = self.cfg
        hooked = not (cfg.is_default("pre_request") and cfg.is_default("post_request"))
        debugging = self.log.error_log.isEnabledFor(logging.DEBUG)
        return Observer(self) if hooked or debugging or self.log.access_log_enabled else None

    # -- the end -------------------------------------------------------------------------------

    def handle_abort(self, sig: int, frame: FrameType | None) -> NoReturn:
        if self.lines is not None:
            self.listening.stop()
            self.lines.give_up()
        super().handle_abort(sig, frame)

    def _wake(self) -> None:
        """A signal was handled; perhaps it ended the worker."""
        os.read(self.PIPE[0], 4096)
        if not self.alive:
            self._over.set()

    def _lose_arbiter(self) -> None:
        self.ioloop.remove_handler(self.lifeline)
        self.log.info("Parent changed, shutting down: %s", self)
        self.become_orphan()
        self._over.set()

    def _count_request(self) -> None:
        self.nr += 1
        if self.nr == self.max_requests:
            self.recycle()

    def _accept_failed(self, why: str) -> None:
        """Descriptors or memory have run out; accepting rests for a moment."""
        self.incidents.accept_failed(why)
        self.server.close_idle(EVICTIONS)

    async def _drain(self) -> None:
        is_last = self.stop_flag is not None and self.stop_flag.is_set()
        await self.listening.leave(for_good=is_last)
        try:
            await asyncio.wait_for(self._finish(), self.cfg.graceful_timeout)
        except asyncio.TimeoutError:
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)

    async def _finish(self) -> None:
        await self.server.drain(self.listening.give_idle_away)
        # Whoever gave something away looks once more before it ends.
        while await self.listening.take_what_nobody_else_will() or self.listening.is_short:
            if self.listening.is_short:  # Nothing tells of descriptors that come free.
                await asyncio.sleep(ACCEPT_REST_S)
            await self.server.wait_until_empty()


def _is_tornados(app: object) -> bool:
    return isinstance(app, (Application, WSGIContainer, HTTPServerConnectionDelegate))
