"""Serving from gevent.pywsgi, for classes that bring a handler of its kind: gevent-websocket's worker is one.

Owns       one pywsgi server a listener, and the count of requests that the application is in.
Never      reads a request: gevent's own parser does, by its own rules for HTTP.
Invariant  the worker leaves when the application is in no request, or graceful_timeout after it was told to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import gevent
from gevent import pywsgi
from gevent.pool import Pool

from bicorn.workers.gateway import ErrorStream, Request, Response, environ_template

if TYPE_CHECKING:
    from bicorn.net.listener import Listener
    from bicorn.workers.gevent import GeventWorker

#: What gevent's server is given of our environ; the rest it finds out itself.
_CONSTANT: Final = (
    "wsgi.errors",
    "wsgi.multithread",
    "wsgi.multiprocess",
    "wsgi.file_wrapper",
    "wsgi.input_terminated",
    "SERVER_SOFTWARE",
)
#: How long idle connections of a draining worker stay open; as in the native loop.
DRAIN_IDLE_TIMEOUT_S: Final = 0.2
#: How often a draining worker looks whether the application is done.
DRAIN_LOOK_S: Final = 0.05


class PyWSGIHandler(pywsgi.WSGIHandler):  # type: ignore[misc]  # gevent's class is untyped
    """gevent's handler, with the access log and the two keys that Gunicorn's adds."""

    def log_request(self) -> None:
        """Write the access line."""
        took = timedelta(seconds=(self.time_finish or self.time_start) - self.time_start)
        request = self.headers.items() if hasattr(self, "headers") else []
        self.server.log.access(response_of(self), request, self.environ or {}, took)

    def get_environ(self) -> dict[str, Any]:
        """Give gevent's environ and two keys more."""
        environ: dict[str, Any] = super().get_environ()
        environ["gunicorn.sock"] = self.socket
        environ["RAW_URI"] = self.path
        return environ


class PyWSGIServer(pywsgi.WSGIServer):  # type: ignore[misc]  # gevent's class is untyped
    """gevent's server."""


def serve(worker: GeventWorker, server_class: Any, handler_class: type | None) -> None:
    """Serve from servers of a class like gevent.pywsgi.WSGIServer until the worker is told to stop."""
    requests = Requests(worker)
    pool = Pool(worker.cfg.worker_connections)
    servers = [_start(worker, listener, requests, pool, server_class, handler_class) for listener in worker.sockets]
    worker.mark_ready()
    while worker.alive and worker.is_arbiter_alive():
        worker.notify()
        worker.told_to_stop.wait(worker.heartbeat_interval)
    _drain(worker, servers, requests)


def _start(
    worker: GeventWorker,
    listener: Listener,
    requests: Requests,
    pool: Pool,
    server_class: Any,
    handler_class: type | None,
) -> Any:
    template = environ_template(worker.cfg, listener, ErrorStream(worker.cfg.errorlog), multithread=True)
    # Its server calls methods that only gevent's own sockets have.
    sock = gevent.socket.socket(listener.family, listener.type, fileno=listener.sock.detach())
    server = server_class(
        sock,
        application=worker.wsgi,
        spawn=pool,
        log=worker.log,
        error_log=worker.log,
        handler_class=requests.counted(handler_class or server_class.handler_class),
        environ={key: template[key] for key in _CONSTANT},
    )
    if worker.cfg.workers > 1:
        server.max_accept = 1  # Leave the rest of the listen queue to the siblings.
    server.start()
    return server


def _drain(worker: GeventWorker, servers: list[Any], requests: Requests) -> None:
    """Accept nothing new, let the application end its requests, close what is idle."""
    for server in servers:
        server.close()
    over_at = time.monotonic() + worker.cfg.graceful_timeout
    # A request that is on its way to an idle connection gets the moment that it takes to arrive.
    idle_until = time.monotonic() + DRAIN_IDLE_TIMEOUT_S
    while requests.count or time.monotonic() < idle_until:
        if time.monotonic() >= over_at:
            worker.log.warning("Worker graceful timeout (pid:%s)", worker.pid)
            break
        worker.notify()
        gevent.sleep(DRAIN_LOOK_S)
    for server in servers:
        server.stop(timeout=0)  # Ends the greenlets of idle connections.


class Requests:
    """The requests that the application is in, with the hooks before and after each."""

    def __init__(self, worker: GeventWorker) -> None:
        cfg = worker.cfg
        self.count = 0
        self._worker = worker
        self._is_hooked = not (cfg.is_default("pre_request") and cfg.is_default("post_request"))

    def counted(self, handler_class: type) -> type:
        """Give a handler class of the same kind that tells when a request begins and ends."""
        requests = self

        class Handler(handler_class):  # type: ignore[misc]  # somebody's class
            def handle_one_response(self) -> None:
                with requests.one(self):
                    super().handle_one_response()

        return Handler

    @contextmanager
    def one(self, handler: Any) -> Iterator[None]:
        """Be around one request."""
        worker = self._worker
        worker.count_request()
        request = request_of(handler.environ) if self._is_hooked else None
        self.count += 1
        try:
            if request is not None:
                worker.cfg.pre_request(worker, request)
            yield
        finally:
            self.count -= 1
            if request is not None:
                self._leave(request, handler)

    def _leave(self, request: Request, handler: Any) -> None:
        try:
            self._worker.cfg.post_request(self._worker, request, handler.environ, response_of(handler))
        except Exception:
            self._worker.log.exception("Exception in post_request hook")


def request_of(environ: dict[str, Any]) -> Request:
    """What the hooks see of the request; handlers of others' have no RAW_URI in their environ."""
    query = environ.get("QUERY_STRING", "")
    path = quote(environ.get("PATH_INFO", ""), encoding="latin-1")
    return Request.of({"RAW_URI": f"{path}?{query}" if query else path, **environ})


def response_of(handler: Any) -> Response:
    """What the hooks and the access log see of the answer. gevent keeps its parts as bytes, or as text in errors."""
    headers = [(_text(name), _text(value)) for name, value in getattr(handler, "response_headers", None) or ()]
    return Response(_text(handler.status or "-"), headers, handler.response_length or 0)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
