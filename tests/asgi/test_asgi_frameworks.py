"""Applications of the frameworks that people use, each under uvicorn too: the answers have to be the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from harness.server import Serve, Server

FRAMEWORKS = ("asgi_fastapi", "asgi_django", "asgi_litestar", "asgi_quart")

#: Requests that every framework's application answers, or some of them with a 404.
REQUESTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/json", {}),
    ("GET", "/json?name=J%C3%BCrgen&count=3", {}),
    ("HEAD", "/json", {}),
    ("GET", "/sync", {}),
    ("GET", "/dependency", {}),
    ("POST", "/body", {"content": b"x" * 300_000}),
    ("POST", "/body", {"content": b""}),
    ("POST", "/upload", {"files": {"file": ("a.bin", b"y" * 200_000)}, "data": {"note": "hello"}}),
    ("GET", "/stream", {}),
    ("GET", "/stream-sync", {}),
    ("GET", "/events", {}),
    ("GET", "/background", {}),
    ("GET", "/file", {}),
    ("GET", "/file", {"headers": {"Range": "bytes=5-20"}}),
    ("GET", "/redirect", {}),
    ("GET", "/missing", {}),
    # uvicorn closes after this one without saying so, which the next request on the connection would meet.
    ("GET", "/error", {"headers": {"Connection": "close"}}),
    ("DELETE", "/json", {}),
    ("GET", "/cookies", {"headers": {"Cookie": "one=1; two=2"}}),
    ("GET", "/request/a%20b/%E2%82%AC?q=%20x&y", {}),
)

#: Fields that are the server's own, or differ from process to process (Quart has the methods of Allow in a set).
NOT_COMPARED = frozenset({"server", "date", "connection", "transfer-encoding", "keep-alive", "allow"})


@pytest.fixture(scope="module", params=FRAMEWORKS)
def both(
    request: pytest.FixtureRequest, serve_module: Serve, uvicorn_module: Callable[[str], int]
) -> tuple[Server, str]:
    """The application under Bicorn, and the address of uvicorn with the same one."""
    server = serve_module(f"{request.param}:app")
    return server, f"http://127.0.0.1:{uvicorn_module(f'{request.param}:app')}"


def answer(client: httpx.Client, method: str, path: str, extra: dict[str, Any]) -> tuple[int, Any, bytes]:
    response = client.request(method, path, headers={"Host": "h.example", **extra.get("headers", {})}, **{
        key: value for key, value in extra.items() if key != "headers"
    })  # fmt: skip
    fields = sorted((name, value) for name, value in response.headers.multi_items() if name not in NOT_COMPARED)
    return response.status_code, fields, response.content


def test_answers_are_those_under_uvicorn(both: tuple[Server, str]) -> None:
    server, uvicorn = both
    server.get("/json")
    with httpx.Client(base_url=server.url) as ours, httpx.Client(base_url=uvicorn) as theirs:
        for method, path, extra in REQUESTS:
            mine, other = answer(ours, method, path, extra), answer(theirs, method, path, extra)
            if mine[0] == 500 == other[0]:
                continue  # Who makes that page is a matter of taste.
            assert without_length(mine) == without_length(other), (method, path)


def without_length(given: tuple[int, Any, bytes]) -> tuple[int, Any, bytes]:
    """A body in one piece whose length the application did not say gets one from us, and chunks from uvicorn."""
    status, fields, content = given
    return status, [field for field in fields if field[0] != "content-length"], content


def test_the_scope_is_that_of_uvicorn(serve_module: Serve, uvicorn_module: Callable[[str], int]) -> None:
    ours = serve_module("asgi_routes:app").url
    theirs = f"http://127.0.0.1:{uvicorn_module('asgi_routes:app')}"
    fields: Any = [
        ("Host", "h.example:81"),
        ("X-Twice", "1"),
        ("x-twice", "2"),
        ("X-Latin", b"\xe9"),
        ("Cookie", "a=b"),
    ]
    for path in ("/scope", "/scope/?a=b&c=%20d", "/scope?", "/%73cope", "/scope/?%C3%BC=%FC"):
        mine, other = (httpx.get(base + path, headers=fields).json() for base in (ours, theirs))
        for scope in (mine, other):
            assert scope["client"][0] == scope["server"][0] == "127.0.0.1"
            del scope["client"], scope["server"], scope["asgi"]
            scope.pop("extensions", None)
        assert mine.pop("bicorn.deadline")
        assert mine == other, path
    old = json.loads(serve_module("asgi_routes:app").raw(b"GET /scope HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")[2])
    assert old["http_version"] == "1.0"
