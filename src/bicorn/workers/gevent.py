"""The gevent workers: a greenlet for each request, beside the native loop that reads and writes.

Owns       the patching of the standard library, and the greenlets of one process.
Never      blocks the hub: what may wait runs in a greenlet of its own, or in the main one.
Invariant  the standard library is patched in the worker's process before the application is loaded, unless
           preload_app loads it earlier; the arbiter's process is patched by nobody but the user.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar

import gevent
from gevent import hub, monkey
from gevent.event import Event
from gevent.queue import SimpleQueue
from gevent.socket import wait_read, wait_write
from greenlet import greenlet

from bicorn.workers import pywsgi
from bicorn.workers.base import ExitWhileBooting
from bicorn.workers.greenlets import GreenWorker, Mailbox


class GeventWorker(GreenWorker):
    """Serves a WSGI application, each request in a greenlet of gevent's."""

    #: For subclasses: a class like gevent.pywsgi.WSGIServer to serve from instead of the native loop, and its handler.
    server_class: ClassVar[Any] = None
    wsgi_handler: ClassVar[Any] = None

    LIBRARY = "gevent"
    PATCH = "from gevent import monkey; monkey.patch_all()"

    @classmethod
    def is_patched(cls) -> bool:
        return bool(monkey.is_module_patched("socket"))

    def patch(self) -> None:
        monkey.patch_all()
        hub.reinit()
        ours = gevent.get_hub()
        # A stop may come while the application, which is being loaded, waits: from the hub it has to reach the main
        # greenlet as SystemExit does, and is no error to print.
        ours.SYSTEM_ERROR = (*ours.SYSTEM_ERROR, ExitWhileBooting)
        ours.NOT_ERROR = (*ours.NOT_ERROR, ExitWhileBooting)

    def init_process(self) -> None:
        self.told_to_stop = Event()
        super().init_process()

    def run(self) -> None:
        if self.server_class is not None:
            pywsgi.serve(self, self.server_class, self.wsgi_handler)
        else:
            super().run()

    def spawn(self, function: Callable[..., Any], *args: Any) -> None:
        # A plain greenlet, as gevent itself starts one: a gevent.Greenlet records the stack that spawned it and links
        # that nobody here looks at, which costs as much again as the whole request.
        ours = gevent.get_hub()
        ours.loop.run_callback(greenlet(function, ours).switch, *args)

    def wait(self, descriptor: int, seconds: float) -> None:
        with gevent.Timeout(seconds, False):
            wait_read(descriptor)

    def wait_writable(self, descriptor: int, seconds: float) -> bool:
        with gevent.Timeout(seconds, False):
            wait_write(descriptor)
            return True
        return False

    def make_mailbox(self) -> Mailbox:
        return SimpleQueue()  # type: ignore[no-any-return]  # gevent is untyped

    def is_in_hub(self) -> bool:
        return gevent.getcurrent() is gevent.get_hub()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.told_to_stop.set()

    def count_request(self) -> None:
        """Count a request that did not come from the native loop."""
        self.nr += 1
        if self.nr == self.max_requests:
            self.recycle()


class GeventPyWSGIWorker(GeventWorker):
    """Serves from gevent's own WSGI server; subclasses set `wsgi_handler`, and some `server_class`."""

    server_class = pywsgi.PyWSGIServer
    wsgi_handler = pywsgi.PyWSGIHandler
