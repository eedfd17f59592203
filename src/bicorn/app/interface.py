"""Which of the two interfaces an application speaks.

Owns       telling WSGI and ASGI applications apart by their shape.
Never      calls the application: a wrong guess must not run a request's worth of user code.
Invariant  whatever has an asynchronous call is ASGI; whatever cannot be told is WSGI, as it is under Gunicorn.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Final

from bicorn.errors import AppImportError

#: Applications that speak neither interface, though they can be called: what they are, and the class that serves them.
_FOREIGN: Final[Mapping[str, tuple[str, str]]] = {
    "aiohttp.web_app.Application": ("an aiohttp application", "aiohttp.GunicornWebWorker"),
    "tornado.web.Application": ("a Tornado application", "tornado"),
}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Interface(enum.Enum):
    """What a worker calls the application with."""

    WSGI = "wsgi"  # app(environ, start_response)
    ASGI = "asgi"  # await app(scope, receive, send)


def interface_of(app: object) -> Interface:
    """The interface that `app` speaks, read from its shape."""
    if inspect.iscoroutinefunction(_function_behind(app)) or _positional_needed(app) == 3:
        return Interface.ASGI
    return Interface.WSGI


def is_called_twice(app: object) -> bool:
    """Whether an ASGI application is of ASGI 2: called with the scope, and what that gives with receive and send."""
    return inspect.isclass(app) or (interface_of(app) is Interface.ASGI and _positional_needed(app) == 1)


def require_wsgi(app: Callable[..., object], uri: str, worker_class: str) -> None:
    """Refuse an application of another kind for a worker that speaks WSGI, before it fails at every request."""
    _refuse_foreign(app, uri, f"the {worker_class} worker serves WSGI")
    if interface_of(app) is Interface.ASGI:
        raise AppImportError(
            f"{uri!r} is an ASGI application and the {worker_class} worker serves WSGI. Start with -k asgi or without "
            "a worker class, or name the WSGI entry point (Django: project.wsgi)."
        )


def require_either(app: Callable[..., object], uri: str) -> None:
    """Refuse an application that is neither ASGI nor WSGI for the asgi worker, which serves both."""
    _refuse_foreign(app, uri, "the asgi worker serves ASGI and WSGI")


def _refuse_foreign(app: Callable[..., object], uri: str, served: str) -> None:
    for base in type(app).__mro__:
        foreign = _FOREIGN.get(f"{base.__module__}.{base.__qualname__}")
        if foreign is not None:
            raise AppImportError(f"{uri!r} is {foreign[0]} and {served}. Start with -k {foreign[1]}.")
    if inspect.iscoroutinefunction(app) and not inspect.signature(app).parameters:
        raise AppImportError(
            f"{uri!r} is a coroutine function without parameters, so it is a factory, and {served}. Start with -k "
            "aiohttp.GunicornWebWorker if it makes an aiohttp application; else name a factory that is not "
            "asynchronous, as MODULE:FACTORY()."
        )


def _function_behind(app: object) -> object:
    """What runs when `app(...)` is written."""
    while isinstance(app, functools.partial):
        app = app.func
    if inspect.isroutine(app) or not callable(app):
        return inspect.unwrap(app) if callable(app) else app
    # A class is called twice in ASGI 2, with the scope and then with receive and send; its __call__ is asynchronous.
    return app.__call__ if inspect.isclass(app) else type(app).__call__


def _positional_needed(app: object) -> int | None:
    """How many positional arguments a call must give; None if nobody can tell."""
    if not callable(app):
        return None
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(p.kind in _POSITIONAL and p.default is inspect.Parameter.empty for p in parameters)
