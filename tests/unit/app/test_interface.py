"""WSGI or ASGI: shapes seen in the wild."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from bicorn.app.failed import failed_app
from bicorn.app.interface import Interface, interface_of, require_either, require_wsgi
from bicorn.errors import AppImportError


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def wsgi_with_more(environ: Any, start_response: Any, extra: int = 0) -> list[bytes]:
    return []


def wsgi_decorated(*args: Any, **kwargs: Any) -> list[bytes]:
    return []


class WsgiObject:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return []

    def method(self, environ: Any, start_response: Any) -> list[bytes]:
        return []


class WsgiClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def asgi_returning_a_coroutine(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


class AsgiObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class PlainAsgiObject:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


def configured(setting: int, environ: Any, start_response: Any) -> list[bytes]:
    return []


async def configured_asgi(setting: int, scope: Any, receive: Any, send: Any) -> None: ...


@functools.wraps(asgi)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return asgi(*args, **kwargs)


@pytest.mark.parametrize(
    "app",
    [
        wsgi,
        wsgi_with_more,
        wsgi_decorated,
        WsgiObject(),
        WsgiObject().method,
        WsgiClass,
        functools.partial(configured, 1),
        functools.partial(WsgiObject()),
        lambda environ, start_response: [],
        failed_app("x"),
        print,
    ],
)
def test_wsgi(app: Any) -> None:
    assert interface_of(app) is Interface.WSGI
    require_wsgi(app, "run:app", "sync")


@pytest.mark.parametrize(
    "app",
    [
        asgi,
        asgi_returning_a_coroutine,
        AsgiObject(),
        AsgiObject().method,
        PlainAsgiObject(),
        Asgi2,
        functools.partial(configured_asgi, 1),
        functools.partial(AsgiObject()),
        functools.partial(functools.partial(asgi)),
        wrapped,
    ],
)
def test_asgi(app: Any) -> None:
    assert interface_of(app) is Interface.ASGI
    with pytest.raises(AppImportError, match=r"'run:app' is an ASGI application and the sync worker serves WSGI"):
        require_wsgi(app, "run:app", "sync")


def test_real_frameworks_are_told_apart() -> None:
    django_conf = pytest.importorskip("django.conf")
    flask = pytest.importorskip("flask")
    asgi_handlers = pytest.importorskip("django.core.handlers.asgi")
    wsgi_handlers = pytest.importorskip("django.core.handlers.wsgi")
    if not django_conf.settings.configured:
        django_conf.settings.configure()
    assert interface_of(flask.Flask("x")) is Interface.WSGI
    assert interface_of(wsgi_handlers.WSGIHandler()) is Interface.WSGI
    assert interface_of(asgi_handlers.ASGIHandler()) is Interface.ASGI


def test_the_failed_app_answers_with_the_traceback() -> None:
    started: list[Any] = []
    body = b"".join(failed_app("Traceback: \udc80 é")({}, lambda *args: started.append(args)))
    assert body == "Traceback: \\udc80 é".encode()
    status, fields = started[0]
    assert status == "500 Internal Server Error"
    assert dict(fields)["Content-Length"] == str(len(body))


def test_an_application_with_a_worker_class_of_its_own_is_sent_there() -> None:
    import aiohttp.web
    import tornado.web

    class Mine(tornado.web.Application):
        pass

    with pytest.raises(AppImportError, match=r"'a:b' is an aiohttp application .* -k aiohttp.GunicornWebWorker\.$"):
        require_wsgi(aiohttp.web.Application(), "a:b", "sync")
    with pytest.raises(AppImportError, match=r"is a Tornado application and the gthread worker .* -k tornado\.$"):
        require_wsgi(Mine(), "a:b", "gthread")
    with pytest.raises(AppImportError, match=r"an aiohttp application and the asgi worker serves ASGI and WSGI\. "):
        require_either(aiohttp.web.Application(), "a:b")
    with pytest.raises(AppImportError, match=r"a Tornado application and the asgi worker .* -k tornado\.$"):
        require_either(Mine(), "a:b")


def test_an_asynchronous_factory_is_no_application() -> None:
    async def create() -> None: ...

    said = r"'a:create' is a coroutine function without parameters, so it is a factory, and the .* worker serves "
    with pytest.raises(AppImportError, match=said):
        require_wsgi(create, "a:create", "sync")
    with pytest.raises(AppImportError, match=said):
        require_either(create, "a:create")


def test_what_either_interface_serves_is_let_through() -> None:
    for app in (asgi, Asgi2, AsgiObject(), failed_app("")):
        require_either(app, "a:b")
