"""What the workers around the native loop have in common: sync, gthread, gevent, eventlet.

Owns       what a loop is told (settings, environ templates) and what it tells: errors, refusals, hooks.
Never      reads or writes a client's socket, and does not know who runs the application.
Invariant  the methods that the loop calls while it serves only log and call hooks, and raise nothing of their own.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol

from bicorn._core import AccessLog, Deadline
from bicorn.app.interface import Interface
from bicorn.ipc.scoreboard import SlotState
from bicorn.observe.access import NativeTarget, native_target
from bicorn.observe.atoms import basic_auth_user
from bicorn.workers.base import Worker
from bicorn.workers.gateway import (
    DRAIN_IDLE_TIMEOUT_S,
    WIRE_SETTINGS,
    ErrorStream,
    Request,
    Response,
    environ_template,
    is_nameless,
    show_left,
)
from bicorn.workers.incidents import Incidents

if TYPE_CHECKING:
    from bicorn.config import Settings
    from bicorn.observe.log import Logger

#: Settings that the loop takes as they are.
_PASSED_ON: Final = (
    *WIRE_SETTINGS,
    "header_timeout",
    "body_timeout",
    "write_timeout",
    "keepalive",
    "linger_timeout",
    "body_buffer_size",
    "body_buffer_total",
    "sendfile",
    "queue_timeout",
    "limit_concurrency",
    "timeout",
    "graceful_timeout",
    "gc_out_of_band",
)

#: Collections of young garbage (gc_out_of_band) before one that looks at everything.
COLLECTIONS_A_FULL_ONE: Final = 10


#: Methods of Gunicorn's sync, gthread and gevent workers that subclasses override; native code stands in their place.
_NEVER_CALLED: Final = frozenset(
    {"accept", "enqueue_req", "finish_request", "handle", "handle_request", "run_for_multiple", "run_for_one"}
)


class NativeLoop(Protocol):
    """A loop of `bicorn._core`, as far as signals reach it."""

    def drain(self) -> None: ...
    def retire(self) -> None: ...
    def stop(self) -> None: ...
    def begin_abort(self) -> None: ...


class NativeWorker(Worker):
    """Serves a WSGI application from a native loop, which a subclass makes and runs."""

    INTERFACE: ClassVar[Interface | None] = Interface.WSGI
    SAYS_READY: ClassVar[bool] = True
    READS_PROXY_HEADERS: ClassVar[bool] = True
    #: Whether requests of one process run side by side: `wsgi.multithread`.
    MULTITHREAD: ClassVar[bool] = False
    #: Whether this class knows when requests are over, so that garbage can be collected in between.
    COLLECTS: ClassVar[bool] = False

    @classmethod
    def check_config(cls, cfg: Settings, log: Logger) -> None:
        """Say in the arbiter's log which methods of a subclass nobody will call."""
        theirs = [vars(base) for base in cls.__mro__ if not base.__module__.startswith("bicorn.")]
        idle = sorted(_NEVER_CALLED.intersection(name for names in theirs for name in names))
        if idle:
            log.warning(
                "%s.%s overrides %s, which is never called: native code reads the requests. What it does belongs into "
                "the hooks pre_request and post_request, or into a WSGI middleware",
                cls.__module__, cls.__qualname__, " and ".join(f"{name}()" for name in idle),
            )  # fmt: skip

    loop: NativeLoop | None = None
    incidents: Incidents
    access: AccessLog | None = None
    _collections = 0

    def run(self) -> None:
        """Make the loop, say that it accepts, and serve until it has ended."""
        self.incidents = Incidents(self.log)
        target = native_target(self.log, self.cfg)
        self.access = self._native_log(target) if target is not None else None
        self.loop = loop = self.make_loop()
        if not self.alive:  # A signal came while the application was loading.
            loop.drain()
        if self.COLLECTS and self.cfg.gc_out_of_band:
            gc.collect()
            gc.freeze()  # What is there now stays: no collection has to look at it again.
            gc.disable()
        self.mark_ready()
        try:
            self.serve()
        finally:
            if self.access is not None:
                self.access.close()
                self._report_lost_lines(self.access)

    def make_loop(self) -> NativeLoop:
        """Make the loop; `site()` is what every one of them takes."""
        raise NotImplementedError

    def serve(self) -> None:
        """Run the loop until it has ended."""
        raise NotImplementedError

    def connections_max(self) -> int:
        """Give the number of connections that may be open; more wait in the listen queue."""
        return self.cfg.worker_connections

    def capacity(self) -> int:
        """Give the number of requests that can run at once, for siblings that hand connections over."""
        return 1

    def waiter(self) -> Callable[[int, float], bool] | None:
        """Give what waits until a descriptor is writable, at most so many seconds; None to block the thread."""
        return None

    def site(self) -> dict[str, Any]:
        """Give the arguments that the constructors of all loops share."""
        return {
            "app": self.wsgi,
            "worker": self,
            "slot": self.slot,
            "listeners": self._listeners(),
            "options": self._options(),
            "access": self.access,
            "lifeline_fd": self.lifeline if self.lifeline >= 0 else None,
        }

    def _listeners(self) -> list[dict[str, Any]]:
        errors = ErrorStream(self.cfg.errorlog)
        return [
            {
                "fd": listener.fileno(),
                "template": {
                    **environ_template(self.cfg, listener, errors, multithread=self.MULTITHREAD),
                    "bicorn.deadline": Deadline(),
                },
                "nameless": is_nameless(listener),
                "name": str(listener),
            }
            for listener in self.sockets
        ]

    def _options(self) -> dict[str, Any]:
        cfg = self.cfg
        options = {name: getattr(cfg, name) for name in _PASSED_ON}
        return {
            **options,
            "secure_scheme_headers": list(cfg.secure_scheme_headers.items()),
            "script_name": os.environ.get("SCRIPT_NAME", ""),
            "drain_idle_timeout": DRAIN_IDLE_TIMEOUT_S,
            "spool_directory": cfg.tmp_upload_dir or tempfile.gettempdir(),
            "max_requests": self.max_requests,
            "observed": self._is_observed(),
            "connections_max": self.connections_max(),
            "capacity": self.capacity(),
            "ready_state": int(SlotState.READY),
            "draining_state": int(SlotState.DRAINING),
            "handover_fds": self.handover,
            "wait_writable": self.waiter(),
            "server": cfg.server_header,
            "shared_listeners": cfg.workers > 1,
        }

    def _is_observed(self) -> bool:
        """Whether each request has to pass through Python: for a hook, or for an access log that is not native."""
        cfg = self.cfg
        hooked = not (cfg.is_default("pre_request") and cfg.is_default("post_request"))
        # The default pre_request logs each request at this level.
        debugging = self.log.error_log.isEnabledFor(logging.DEBUG)
        return hooked or debugging or (self.access is None and self.log.access_log_enabled)

    def _native_log(self, target: NativeTarget) -> AccessLog:
        interval = self.cfg.access_log_flush_interval
        return AccessLog(target.format, target.fd, target.path, interval, self.log.now, basic_auth_user)

    def _report_lost_lines(self, access: AccessLog) -> None:
        failure = access.take_failure()
        if failure is not None:
            self.log.error("Access log lines were lost: %s", failure)

    # -- signals -------------------------------------------------------------------------------

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.loop is not None:
            self.loop.drain()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        # The exit that this raises may come up in the middle of an application that swallows it, or serves on.
        if self.loop is not None:
            self.loop.stop()
        super().handle_quit(sig, frame)

    def handle_abort(self, sig: int, frame: FrameType | None) -> NoReturn:
        if self.loop is not None:
            self.loop.begin_abort()
        super().handle_abort(sig, frame)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        super().handle_usr1(sig, frame)
        if self.access is not None:
            try:
                self.access.reopen()
            except OSError as error:
                self.log.error("Cannot reopen the access log, the old file goes on: %s", error)

    # -- what the loop tells -------------------------------------------------------------------

    def application_failed(self, error: BaseException, environ: dict[str, Any] | None, head_sent: bool) -> None:
        """The application raised. `head_sent`: too late for a 500, so the connection was broken off."""
        request = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}" if environ else "(no environ)"
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            # One of our own signal handlers, which said so already, or an application that ends its process.
            if self.alive:
                self.log.error("%s raised in request %s: this worker ends", type(error).__name__, request)
            return
        suffix = " after its response had begun" if head_sent else ""
        self.log.error("Error handling request %s%s", request, suffix, exc_info=error)

    def close_failed(self, error: BaseException) -> None:
        """The iterable's close() raised; the response was complete."""
        self.log.error("Error closing the response's iterable", exc_info=error)

    def response_short(self, environ: dict[str, Any], promised: int | None, sent: int) -> None:
        """The body ended before its Content-Length; only a close can tell the client."""
        self.log.error(
            "The application promised %s bytes for %s %s and gave %s: the connection was closed",
            promised, environ["REQUEST_METHOD"], environ["RAW_URI"], sent,
        )  # fmt: skip

    def response_long(self, environ: dict[str, Any], promised: int | None) -> None:
        """The body was longer than its Content-Length; the rest was not sent."""
        self.log.warning(
            "The application promised %s bytes for %s %s and gave more: the rest was dropped",
            promised, environ["REQUEST_METHOD"], environ["RAW_URI"],
        )  # fmt: skip

    def request_refused(self, remote_addr: str, status: int, why: str) -> None:
        """A request broke a rule of the wire and was answered with `status`."""
        self.log.warning("Invalid request from ip=%s: %s [%s]", remote_addr, why, status)

    def request_turned_away(self, remote_addr: str, why: str) -> None:
        """A request was answered 503: there is too much to do."""
        self.incidents.request_turned_away(remote_addr, why)

    def copy_returned(self, error: BaseException | None) -> NoReturn:
        """The application forked, and this is the copy, which came back from the call: it has no client and ends."""
        code = 0
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                sys.stderr.write(f"{error.code}\n")
        elif error is not None:
            code = 1
            self.log.error("Error in a process that a request has forked (pid: %s)", os.getpid(), exc_info=error)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        # Exit handlers and finalizers are the worker's: its sockets and its files are not ours to close.
        os._exit(code & 0xFF)

    def collect_garbage(self) -> None:
        """gc_out_of_band requests have been answered."""
        self._collections += 1
        gc.collect(2 if self._collections % COLLECTIONS_A_FULL_ONE == 0 else 1)

    def request_misplaced(self, why: str) -> None:
        """SCRIPT_NAME does not fit the path; somebody's configuration is wrong."""
        self.log.error("Error handling request: %s", why)

    def accept_failed(self, why: str) -> None:
        """A connection could not be accepted; the loop rests for a moment and tries again."""
        self.incidents.accept_failed(why)

    def spool_failed(self, why: str) -> None:
        """A request body could not be written to disk; its client got a 503."""
        where = self.cfg.tmp_upload_dir or tempfile.gettempdir()
        self.log.error("Cannot store a request body in %s (tmp_upload_dir): %s", where, why)

    def request_entered(self, environ: dict[str, Any]) -> Request:
        """A request is about to be answered; called only when somebody observes requests."""
        request = Request.of(environ)
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
