"""The worker classes that Bicorn has, for tests that hold them to the same."""

from __future__ import annotations

from typing import Final

#: Classes that run each request in a greenlet.
GREEN: Final = ("gevent", "eventlet")
#: Classes that serve WSGI applications from the native loop.
NATIVE: Final = ("sync", "gthread", *GREEN)
#: Every class of Bicorn's; all of them serve WSGI applications, if some in a way of their own.
ALL: Final = (*NATIVE, "tornado", "asgi")
#: The loops that the asgi worker runs on; whatever is about tasks, transports and accepting is tested on both.
LOOPS: Final = ("uvloop", "asyncio")
