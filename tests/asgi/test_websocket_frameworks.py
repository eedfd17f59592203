"""Frameworks and real clients: what happens under Bicorn is what happens under uvicorn."""

from __future__ import annotations

import asyncio
import functools
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import socketio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect
from websockets.typing import Subprotocol

from harness.answers import AnswerReader
from harness.proxy import NGINX, nginx
from harness.server import Serve, wait_until

#: What a scenario saw, as a value that can be compared.
Seen = list[Any]
DEADLINE_S = 20


@pytest.fixture(scope="module")
def both(serve_module: Serve, uvicorn_module: Callable[[str], int]) -> Callable[[str], list[int]]:
    """Give the ports of Bicorn and uvicorn with an application; started once for a module."""

    @functools.cache
    def ports(app: str) -> list[int]:
        return [serve_module(app, "-k", "asgi").port, uvicorn_module(app)]

    return ports


def same(ports: list[int], scenario: Callable[[int], Seen]) -> Seen:
    """Play a scenario with both servers and give what both saw."""
    ours, theirs = (scenario(port) for port in ports)
    assert ours == theirs
    return ours


def opened(port: int, path: str, *subprotocols: str) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{port}{path}",
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        open_timeout=DEADLINE_S,
        close_timeout=DEADLINE_S,
    )


def ending(client: ClientConnection) -> tuple[int | None, str | None]:
    """How the server closed."""
    with pytest.raises(ConnectionClosed):
        client.recv(DEADLINE_S)
    return client.close_code, client.close_reason


def refusal(port: int, path: str) -> tuple[int, bytes | bytearray | None]:
    """Status and body of the answer to a handshake that was refused."""
    with pytest.raises(InvalidStatus) as refused:
        opened(port, path).close()
    return refused.value.response.status_code, refused.value.response.body


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE_S) as answer:
        body: bytes = answer.read()
        return body


# -- FastAPI and Starlette -------------------------------------------------------------------------


def test_a_chat_of_fastapi(both: Callable[[str], list[int]]) -> None:
    def scenario(port: int) -> Seen:
        with opened(port, "/chat/ann") as ann:
            ann.send("anybody?")
            seen: Seen = [ann.recv(DEADLINE_S)]
            with opened(port, "/chat/bob") as bob:
                bob.send("me \N{SNOWMAN}")
                seen += [ann.recv(DEADLINE_S), bob.recv(DEADLINE_S)]
                bob.close(4001, "tired")
            left = wait_until(lambda: json.loads(get(port, "/left")), "somebody left")
            long = "x" * 200_000
            ann.send(long)
            return [*seen, left, ann.recv(DEADLINE_S) == f"ann: {long}"]

    seen = same(both("websocket_fastapi:app"), scenario)
    assert seen == ["ann: anybody?", "bob: me \N{SNOWMAN}", "bob: me \N{SNOWMAN}", ["bob 4001 tired"], True]


def test_guards_denials_and_closes_of_fastapi(both: Callable[[str], list[int]]) -> None:
    def scenario(port: int) -> Seen:
        with opened(port, "/guarded?token=abc", "v2", "v1") as client:
            seen: Seen = [client.subprotocol, json.loads(client.recv(DEADLINE_S)), ending(client)]
        return [*seen, refusal(port, "/guarded")[0], refusal(port, "/denied"), refusal(port, "/nowhere")[0]]

    shown = {"token": "abc", "scheme": "ws", "path": "/guarded"}
    seen = same(both("websocket_fastapi:app"), scenario)
    assert seen == ["v1", shown, (3001, "that was all"), 403, (429, b'{"why":"full"}'), 403]


def test_json_and_bytes_of_starlette(both: Callable[[str], list[int]]) -> None:
    def scenario(port: int) -> Seen:
        with opened(port, "/double") as client:
            response = client.response
            assert response is not None
            seen: Seen = [response.headers["x-accepted"]]
            for _ in range(3):
                client.send("[1, 2, 3]")
                seen += [client.recv(DEADLINE_S), client.recv(DEADLINE_S)]
            return seen

    assert same(both("websocket_fastapi:app"), scenario) == ["yes", *["[2,4,6]", b"\1\2\3\1\2\3"] * 3]


def test_an_application_that_breaks(both: Callable[[str], list[int]]) -> None:
    codes = []
    for port in both("websocket_fastapi:app"):
        with opened(port, "/broken") as client:
            client.send("now")
            codes.append(ending(client)[0])
    # uvicorn only ends the connection, which is 1006 to the client; RFC 6455 7.4.1 has 1011 for it.
    assert codes == [1011, 1006]


# -- nginx -----------------------------------------------------------------------------------------


def test_through_nginx_as_the_guide_has_it(serve_module: Serve) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "websockets-behind-nginx.md").read_text()
    settings = [
        line.strip() for line in NGINX.splitlines() if "proxy_set_header" in line or "$connection_upgrade" in line
    ]
    assert len(settings) == 6 and all(line.replace("{{", "{") in guide for line in settings)
    server = serve_module("websocket_fastapi:app", "-k", "asgi")
    with nginx(f"127.0.0.1:{server.port}") as proxy:
        path = proxy.address.removeprefix("unix:")
        for _ in range(2):
            with unix_connect(path, "ws://h.example/double", open_timeout=DEADLINE_S) as client:
                client.send("[1, 2]")
                assert [client.recv(DEADLINE_S), client.recv(DEADLINE_S)] == ["[2,4]", b"\1\2\1\2"]
        with server.connect(proxy.address) as sock:
            sock.sendall(b"GET /left HTTP/1.1\r\nHost: h.example\r\nConnection: close\r\n\r\n")
            assert AnswerReader(sock).read_answer().body == b"[]"


# -- Django and channels ---------------------------------------------------------------------------


def test_consumers_of_channels(both: Callable[[str], list[int]]) -> None:
    def scenario(port: int) -> Seen:
        seen: Seen = [get(port, "/"), refusal(port, "/room")[0]]
        with opened(port, "/room", "chat") as one, opened(port, "/room", "chat") as two:
            one.send(json.dumps({"words": "hello room"}))
            seen += [one.subprotocol, json.loads(one.recv(DEADLINE_S)), json.loads(two.recv(DEADLINE_S))]
        with opened(port, "/shout") as client:
            client.send("quiet words")
            seen.append(client.recv(DEADLINE_S))
            client.send("stop")
            return [*seen, ending(client)]

    heard = {"heard": "hello room"}
    seen = same(both("websocket_channels:app"), scenario)
    assert seen == [b"hello", 403, "chat", heard, heard, "QUIET WORDS", (4000, "stopped")]


# -- Socket.IO -------------------------------------------------------------------------------------


async def talk(port: int, transports: list[str]) -> Seen:
    """Speak as Socket.IO's own client does."""
    client = socketio.AsyncClient(reconnection=False)
    heard: asyncio.Queue[Any] = asyncio.Queue()
    client.on("said", heard.put)
    await client.connect(f"http://127.0.0.1:{port}", auth={"name": "ann"}, transports=transports)
    seen: Seen = [client.transport()]
    seen.append(await client.call("say", "hello", timeout=DEADLINE_S))
    seen.append(await asyncio.wait_for(heard.get(), DEADLINE_S))
    seen.append(await client.call("blob", b"\x00\x01\x02" * 10_000, timeout=DEADLINE_S) == b"\x02\x01\x00" * 10_000)
    await client.disconnect()
    return seen


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]], ids="+".join)
def test_socket_io(both: Callable[[str], list[int]], transports: list[str]) -> None:
    seen = same(both("websocket_socketio:app"), lambda port: asyncio.run(talk(port, transports)))
    assert seen == [transports[-1], "5 letters", {"name": "ann", "words": "hello"}, True]


def test_socket_io_refuses(both: Callable[[str], list[int]]) -> None:
    async def refused(port: int) -> Seen:
        client = socketio.AsyncClient(reconnection=False)
        with pytest.raises(socketio.exceptions.ConnectionError) as error:
            await client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
        return [str(error.value)]

    same(both("websocket_socketio:app"), lambda port: asyncio.run(refused(port)))
