"""The `asgi` worker: an event loop of asyncio or uvloop, with connections and requests handled natively.

Owns       the loop, when it listens, the worker's signals and its ticker.
Never      touches a request: bicorn._core does, and tells what is worth telling.
Invariant  READY is said when the lifespan has started and every listener accepts; nothing that is held when the
           worker is told to stop is lost before graceful_timeout.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, cast

from bicorn._core import AccessLog, AsgiServer, Deadline, Lines
from bicorn.app.interface import Interface, interface_of, is_called_twice, require_either
from bicorn.observe.access import native_target
from bicorn.observe.atoms import basic_auth_user
from bicorn.workers.accepting import ACCEPT_REST_S
from bicorn.workers.asgi_lifespan import AsgiApp, Lifespan
from bicorn.workers.asgi_listening import Listening
from bicorn.workers.asgi_loops import chosen_loop, new_event_loop
from bicorn.workers.asgi_wsgi import WsgiInAsgi, environ_of
from bicorn.workers.base import Worker
from bicorn.workers.gateway import DRAIN_IDLE_TIMEOUT_S, WIRE_SETTINGS, Request, Response, show_left
from bicorn.workers.incidents import Incidents
from bicorn.workers.siblings import Siblings
from bicorn.workers.watched import watched_lines

if TYPE_CHECKING:
    from bicorn.config import Settings

#: How often the worker shows that its loop turns, and looks at the patience of its connections, in seconds. The
#: shortest `timeout` is 1 s.
TICK_S: Final = 0.5
#: Idle connections that are closed to make room when descriptors have run out; as in the native loop.
EVICTIONS: Final = 16
#: How long applications may take to end after they were cancelled, in seconds.
CANCEL_S: Final = 1.0

#: A worker that drains while the server goes on closes its WebSockets so many seconds before graceful_timeout ends, so
#: that clients can answer and applications can end.
WEBSOCKET_CLOSE_S: Final = 2.0
#: Close codes (RFC 6455, 7.4.1, and its registry): the server is gone; it is there again at once.
GOING_AWAY: Final = 1001
SERVICE_RESTART: Final = 1012

#: Settings that the native side takes as they are.
_PASSED_ON: Final = (
    *WIRE_SETTINGS,
    "header_timeout",
    "body_timeout",
    "write_timeout",
    "keepalive",
    "linger_timeout",
    "asgi_disconnect_grace_period",
    "asgi_read_ahead",
    "limit_concurrency",
    "queue_timeout",
    "worker_connections",
    "websocket_max_message_size",
    "websocket_max_queue",
    "websocket_compression",
    "websocket_ping_interval",
    "websocket_ping_timeout",
)

#: HTTP spec 2.4: send() raises OSError once the client has left.
_ASGI: Final = {"version": "3.0", "spec_version": "2.4"}


class AsgiWorker(Worker):
    """Serves an ASGI application; a WSGI application in a pool of threads."""

    SAYS_READY: ClassVar[bool] = True
    READS_PROXY_HEADERS: ClassVar[bool] = True

    event_loop: asyncio.AbstractEventLoop
    incidents: Incidents
    listening: Listening
    server: AsgiServer | None = None
    lines: Lines | None = None
    access: AccessLog | None = None
    _stopping: asyncio.Event
    _drained: asyncio.Event
    _is_quick: bool = False
    _is_aborted: bool = False
    _is_living: bool = False  # whether the loop has taken over: signals before that end the worker as any other
    _has_lasting_websockets: bool = False

    # -- life ----------------------------------------------------------------------------------

    @classmethod
    def require_served(cls, app: Callable[..., object], cfg: Settings) -> None:
        require_either(app, cfg.app_uri or "")

    def run(self) -> None:
        self.incidents = Incidents(self.log)
        kind = chosen_loop(self.cfg.asgi_loop)
        self.event_loop = new_event_loop(kind)
        self.log.debug("Event loop: %s", kind)
        target = native_target(self.log, self.cfg)
        if target is not None:
            interval = self.cfg.access_log_flush_interval
            self.access = AccessLog(target.format, target.fd, target.path, interval, self.log.now, basic_auth_user)
        try:
            self.event_loop.run_until_complete(self._live())
        finally:
            asyncio.set_event_loop(None)
            self.event_loop.close()
            if self.access is not None:
                self.access.close()
                self._report_lost_lines(self.access)

    async def _live(self) -> None:
        self._stopping, self._drained = asyncio.Event(), asyncio.Event()
        self._is_living = True
        # Until the lifespan has started, an end is a failed boot, and a reload then leaves the old workers.
        self.booted = False
        self._watch()
        self._tick(self.event_loop.time())
        state: dict[str, Any] = {}
        app = as_asgi3(self.wsgi, self)
        lifespan = Lifespan(app, "off" if isinstance(app, WsgiInAsgi) else self.cfg.asgi_lifespan, state, self.log)
        if not await self._started(lifespan):
            return
        self.booted = True
        self.lines = watched_lines(self)
        self.server = AsgiServer(
            app,
            self,
            self.event_loop,
            self.slot,
            self.lines,
            self._template(),
            state,
            self._options(),
            access=self.access,
        )
        self.listening = Listening(
            self.event_loop, self.sockets, self.server, self._siblings(), self.cfg, self.log, self.accept_failed
        )
        if self.alive:
            await self.listening.start()
            self.mark_ready()
            await self._stopping.wait()
        await self._finish()
        await lifespan.shutdown(self.cfg.lifespan_shutdown_timeout)
        self.server.close()
        await asyncio.sleep(0)  # Tasks that were prepared for requests end here.
        await self.event_loop.shutdown_asyncgens()

    async def _started(self, lifespan: Lifespan) -> bool:
        """Run the startup; False if the worker was told to stop meanwhile."""
        startup = asyncio.create_task(lifespan.startup(self.cfg.lifespan_startup_timeout))
        stopping = asyncio.create_task(self._stopping.wait())
        if not self.alive:
            self._stopping.set()
        await asyncio.wait({startup, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not startup.done():
            startup.cancel()
            await asyncio.gather(startup, return_exceptions=True)
            await lifespan.shutdown(self.cfg.lifespan_shutdown_timeout)
            return False
        startup.result()
        return True

    async def _finish(self) -> None:
        """Accept nothing new, finish what is held; told to stop at once, cancel it instead."""
        assert self.server is not None
        self.listening.stop()
        if not self._is_quick:
            await self.listening.leave(for_good=self._is_last())
        self._close_websockets_in_time()
        self.server.drain()
        self.listening.give_idle_away()
        # Those that stay get a moment for a request that their client has already sent.
        self.event_loop.call_later(DRAIN_IDLE_TIMEOUT_S, self.server.tick)
        while not self._is_quick:
            await self._wait_until_drained()
            self._drained.clear()
            if self._is_quick:
                break
            if self._is_holding() or await self.listening.take_what_nobody_else_will():
                continue
            if not self.listening.is_short:
                break
            self.event_loop.call_later(ACCEPT_REST_S, self._drained.set)
        if self._is_quick:
            await self._cancel_all()

    def _is_holding(self) -> bool:
        assert self.server is not None
        return self.server.connections > 0 or self.server.running > 0

    async def _wait_until_drained(self) -> None:
        """Wait until nothing is held any more, or all is to end at once."""
        quick = asyncio.create_task(self._quick_stop())
        drained = asyncio.create_task(self._drained.wait())
        await asyncio.wait({quick, drained}, return_when=asyncio.FIRST_COMPLETED)
        quick.cancel()
        drained.cancel()

    def _close_websockets_in_time(self) -> None:
        """Close WebSockets at once if the server stops; if not, let them be as long as graceful_timeout allows."""
        assert self.server is not None
        if self._is_quick or self._is_last():
            self.server.close_websockets(GOING_AWAY)
            return
        self._has_lasting_websockets = True
        patience = max(self.cfg.graceful_timeout - WEBSOCKET_CLOSE_S, self.cfg.graceful_timeout / 2)
        self.event_loop.call_later(patience, self.server.close_websockets, SERVICE_RESTART)

    async def _quick_stop(self) -> None:
        self._stopping.clear()
        while not self._is_quick:
            await self._stopping.wait()
            self._stopping.clear()

    async def _cancel_all(self) -> None:
        assert self.server is not None
        self.server.close_websockets(GOING_AWAY)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        requests = [task for task in tasks if task.get_name() == "bicorn-request"]
        for task in requests:
            task.cancel()
        if requests:
            await asyncio.wait(requests, timeout=CANCEL_S)

    # -- listening -----------------------------------------------------------------------------

    def _siblings(self) -> Siblings | None:
        if self.handover is None or self.slot is None:
            return None
        return Siblings(self.event_loop, self.slot, self.handover, self.sockets, self.accept_failed)

    def _is_last(self) -> bool:
        """Whether the server stops as a whole: no other worker takes what this one leaves."""
        return self.stop_flag is not None and self.stop_flag.is_set()

    def connections_full(self) -> None:
        """worker_connections are open: others are accepted by siblings, or wait."""
        self.log.debug("%s connections are open (worker_connections): accepting rests", self.cfg.worker_connections)
        self.listening.stop()

    def connections_free(self) -> None:
        """One of them was closed."""
        if self.alive:
            self._relisten = self.event_loop.create_task(self.listening.start())

    def accept_failed(self, why: str) -> None:
        """Descriptors or memory have run out; accepting rests for a moment."""
        assert self.server is not None
        self.incidents.accept_failed(why)
        self.server.close_idle(EVICTIONS)

    # -- what the native side is told ----------------------------------------------------------

    def _template(self) -> dict[str, Any]:
        """The scope of a request as far as it is known before the request."""
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "server": None,
            "client": None,
            "scheme": "http",
            "method": "GET",
            "root_path": self.cfg.root_path,
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": (),
            "state": None,
            "extensions": {
                "http.response.pathsend": {},
                "http.response.zerocopysend": {},
                "http.response.early_hint": {},
                "http.response.trailers": {},
            },
            # `timeout` is the loop's here, not a request's, so there is none to extend.
            "bicorn.deadline": Deadline(watched=False),
        }

    def _options(self) -> dict[str, Any]:
        cfg = self.cfg
        return {
            **{name: getattr(cfg, name) for name in _PASSED_ON},
            "secure_scheme_headers": list(cfg.secure_scheme_headers.items()),
            "drain_idle_timeout": DRAIN_IDLE_TIMEOUT_S,
            "max_requests": self.max_requests,
            "observed": self._is_observed(),
            "server": cfg.server_header,
        }

    def _is_observed(self) -> bool:
        """Whether each request has to pass through Python: for a hook, or for an access log that is not native."""
        cfg = self.cfg
        hooked = not (cfg.is_default("pre_request") and cfg.is_default("post_request"))
        debugging = self.log.error_log.isEnabledFor(logging.DEBUG)
        return hooked or debugging or (self.access is None and self.log.access_log_enabled)

    def _report_lost_lines(self, access: AccessLog) -> None:
        failure = access.take_failure()
        if failure is not None:
            self.log.error("Access log lines were lost: %s", failure)

    # -- time and signals ----------------------------------------------------------------------

    def _tick(self, due: float) -> None:
        """Show that the loop turns: a coroutine that blocks it stops this, and the arbiter notices."""
        now = self.event_loop.time()
        self.notify()
        if self.slot is not None:
            self.slot.loop_lag_us = max(0, int((now - due) * 1e6))
        if self.server is not None:
            self.server.tick()
            self.listening.look()
            self.listening.give_idle_away()
            self.listening.balance()
            if self._has_lasting_websockets and self._is_last():
                # The server stops, and this worker was draining already: nobody tells it a second time.
                self._has_lasting_websockets = False
                self.server.close_websockets(GOING_AWAY)
        self.event_loop.call_at(now + TICK_S, self._tick, now + TICK_S)

    def _watch(self) -> None:
        """Take signals and the arbiter's death in the loop. SIGABRT stays outside: it comes when the loop is stuck."""
        for signum, handler in (
            (signal.SIGTERM, self.handle_exit),
            (signal.SIGINT, self.handle_quit),
            (signal.SIGQUIT, self.handle_quit),
            (signal.SIGUSR1, self.handle_usr1),
        ):
            self.event_loop.add_signal_handler(signum, handler, signum, None)
        if self.lifeline >= 0:
            self.event_loop.add_reader(self.lifeline, self._arbiter_gone)

    def _arbiter_gone(self) -> None:
        self.event_loop.remove_reader(self.lifeline)
        self.log.info("Arbiter is gone, shutting down: %s", self)
        self.become_orphan()
        self._stopping.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self._is_living:
            super().handle_exit(sig, frame)  # The application is being loaded, which may take for ever.
            return
        self.alive = False
        self._stopping.set()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        if not self._is_living:
            super().handle_quit(sig, frame)
        self.alive = False
        if self._is_quick:
            return
        self._is_quick = True
        self.begin_exit()
        self.cfg.worker_int(self)
        self._stopping.set()

    def handle_abort(self, sig: int, frame: FrameType | None) -> NoReturn:
        if self.server is not None and self.lines is not None:
            self.listening.stop()  # An application that swallows the exit lets the loop go on until SIGKILL.
            self.lines.give_up()
        self._is_aborted = True
        super().handle_abort(sig, frame)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        super().handle_usr1(sig, frame)
        if self.access is not None:
            try:
                self.access.reopen()
            except OSError as error:
                self.log.error("Cannot reopen the access log, the old file goes on: %s", error)

    # -- what the native side tells ------------------------------------------------------------

    def application_failed(self, error: BaseException, scope: dict[str, Any] | None, when: str, fatal: bool) -> None:
        """The application raised. `when`: how far its response was. `fatal`: it wants to end the process."""
        if fatal and not self.alive:
            # One of our own signal handlers, which said so already. The application's step is over, the loop is not.
            if self._is_aborted:
                self.event_loop.call_soon(self._exit, 1)
            return
        if fatal:
            self.log.error("%s raised in request %s: this worker ends", type(error).__name__, _line(scope))
            self.alive = False
            self._stopping.set()
            return
        if isinstance(error, asyncio.CancelledError):
            self.log.info("Request %s was cancelled", _line(scope))
            return
        self.log.error("Error handling request %s%s", _line(scope), when, exc_info=error)

    def response_missing(self, scope: dict[str, Any] | None, answered: bool) -> None:
        """The application returned before its response was complete."""
        what = "the end of its response: the connection was closed" if answered else "a response: the client got a 500"
        self.log.error("The application returned from request %s without %s", _line(scope), what)

    def response_short(self, scope: dict[str, Any] | None, promised: int | None, sent: int) -> None:
        """The body ended before its Content-Length; only a close can tell the client."""
        self.log.error(
            "The application promised %s bytes for %s and gave %s: the connection was closed",
            promised, _line(scope), sent,
        )  # fmt: skip

    def response_long(self, scope: dict[str, Any] | None, promised: int | None) -> None:
        """The body was longer than its Content-Length; the rest was not sent."""
        self.log.warning(
            "The application promised %s bytes for %s and gave more: the rest was dropped", promised, _line(scope)
        )

    def request_refused(self, remote_addr: str, status: int, why: str) -> None:
        """A request broke a rule of the wire and was answered with `status`."""
        self.log.warning("Invalid request from ip=%s: %s [%s]", remote_addr, why, status)

    def request_turned_away(self, remote_addr: str, why: str) -> None:
        """A request was answered 503: it had waited for too long, or is one too many."""
        self.incidents.request_turned_away(remote_addr, why)

    def drained(self) -> None:
        """Nothing is held any more."""
        self._drained.set()

    def request_entered(self, scope: dict[str, Any]) -> Request:
        """A request is about to be answered; called only when somebody observes requests."""
        request = Request.of({**environ_of(scope, ""), "wsgi.input": None})
        self.cfg.pre_request(self, request)
        return request

    def request_left(
        self,
        request: Request,
        environ: dict[str, Any],
        status: str,
        headers: list[tuple[str, str]],
        sent: int,
        elapsed_us: int,
    ) -> None:
        """The same request has been answered."""
        elapsed = timedelta(microseconds=elapsed_us) if self.access is None else None
        show_left(self, request, environ, Response(status, headers, sent), elapsed)


def _line(scope: dict[str, Any] | None) -> str:
    return f"{scope.get('method', 'WebSocket')} {scope['path']}" if scope else "(no scope)"


def as_asgi3(app: Any, worker: AsgiWorker) -> AsgiApp:  # Any: whatever the user's application is
    """Give an application of any kind as one that is called with scope, receive and send."""
    if interface_of(app) is Interface.WSGI:
        worker.log.info("A WSGI application: it is called in threads (see -k sync for one without)")
        return WsgiInAsgi(app, worker.cfg, worker.log)
    return _two_calls(app) if is_called_twice(app) else cast("AsgiApp", app)


def _two_calls(app: Any) -> AsgiApp:  # Any: as above
    """ASGI 2: called with the scope, and what that gives with receive and send."""

    async def called_twice(scope: Any, receive: Any, send: Any) -> None:  # Any: the types of AsgiApp
        await app(scope)(receive, send)

    return called_twice
