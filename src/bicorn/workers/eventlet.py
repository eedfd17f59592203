"""The eventlet worker: a green thread for each request, beside the native loop that reads and writes.

Owns       the patching of the standard library, and the green threads of one process.
Never      blocks the hub: what may wait runs in a green thread of its own, or in the main one.
Invariant  the standard library is patched in the worker's process before the application is loaded, unless
           preload_app loads it earlier; the arbiter's process is patched by nobody but the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import eventlet
import greenlet
from eventlet import hubs, patcher, wsgi
from eventlet.queue import LightQueue

from bicorn.workers.base import ExitWhileBooting
from bicorn.workers.greenlets import GreenWorker, Mailbox


class EventletWorker(GreenWorker):
    """Serves a WSGI application, each request in a green thread of eventlet's."""

    LIBRARY = "eventlet"
    PATCH = "import eventlet; eventlet.monkey_patch()"

    @classmethod
    def is_patched(cls) -> bool:
        return bool(patcher.is_monkey_patched("socket"))

    def patch(self) -> None:
        hubs.use_hub()  # A new one: the descriptors of a hub that the arbiter's process made are shared with it.
        eventlet.monkey_patch()
        ours = hubs.get_hub()
        # A stop may come while the application, which is being loaded, waits: from the hub it has to reach the main
        # greenlet as SystemExit does.
        ours.SYSTEM_EXCEPTIONS = (*ours.SYSTEM_EXCEPTIONS, ExitWhileBooting)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        app = self.wsgi
        assert app is not None, "it was just loaded"

        def already_handled(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            """Tell the loop of connections that eventlet.websocket has taken over and ended."""
            wsgi.WSGI_LOCAL.already_handled = False
            body: Iterable[bytes] = app(environ, start_response)
            if wsgi.WSGI_LOCAL.already_handled:
                raise StopIteration
            return body

        self.wsgi = already_handled

    def spawn(self, function: Callable[..., Any], *args: Any) -> None:
        eventlet.spawn_n(function, *args)

    def spawn_in_hub(self, function: Callable[..., Any], *args: Any) -> None:
        # At once: spawn_n() makes a timer, and how long the hub sleeps was settled before the signal.
        greenlet.greenlet(function, hubs.get_hub().greenlet).switch(*args)

    def wait(self, descriptor: int, seconds: float) -> None:
        try:
            hubs.trampoline(descriptor, read=True, timeout=seconds, timeout_exc=TimeoutError)
        except TimeoutError:
            return

    def wait_writable(self, descriptor: int, seconds: float) -> bool:
        try:
            hubs.trampoline(descriptor, write=True, timeout=seconds, timeout_exc=TimeoutError)
        except TimeoutError:
            return False
        return True

    def make_mailbox(self) -> Mailbox:
        return LightQueue()  # type: ignore[no-any-return]  # eventlet is untyped

    def is_in_hub(self) -> bool:
        return greenlet.getcurrent() is hubs.get_hub().greenlet
