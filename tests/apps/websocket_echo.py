"""WebSockets by path: echo, closes of all kinds, denials, failures. What happens to one is printed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from urllib.parse import parse_qs

Message = dict[str, Any]


def note(scope: Message, *words: object) -> None:
    """Print a line that a test waits for; the query's mark tells whose it is."""
    mark = parse_qs(scope["query_string"].decode()).get("mark", ["-"])[0]
    print("noted", mark, *words, file=sys.stderr, flush=True)


async def accept(receive: Any, send: Any) -> None:
    """Accept what asks for it."""
    message = await receive()
    assert message == {"type": "websocket.connect"}, message
    await send({"type": "websocket.accept"})


async def echo(scope: Message, receive: Any, send: Any) -> None:
    """Send back every message until the client goes."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    note(scope, "disconnect", message["code"], repr(message.get("reason")))


async def subprotocol(scope: Message, receive: Any, send: Any) -> None:
    """Choose the last subprotocol offered, and add a field."""
    headers = [(b"x-chosen", b"last")]
    await receive()
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1], "headers": headers})
    await receive()


async def scope_text(scope: Message, receive: Any, send: Any) -> None:
    """Say what the scope holds."""
    await accept(receive, send)
    shown = {key: value for key, value in scope.items() if key not in ("headers", "state", "client", "server", "asgi")}
    shown["bicorn.deadline"] = repr(shown["bicorn.deadline"])
    await send({"type": "websocket.send", "text": repr(sorted(shown.items(), key=lambda item: item[0]))})
    await send({"type": "websocket.close", "code": 1000})


async def hasty(scope: Message, receive: Any, send: Any) -> None:
    """Accept before the question was received, and say what is."""
    await send({"type": "websocket.accept"})
    note(scope, "received", (await receive())["type"], (await receive())["text"])


async def refuse(scope: Message, receive: Any, send: Any) -> None:
    """Close before accepting."""
    await send({"type": "websocket.close"})
    note(scope, "then", (await receive())["type"])


async def deny(scope: Message, receive: Any, send: Any) -> None:
    """Answer with a response of its own."""
    start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no token")]}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"entry"})


async def close(scope: Message, receive: Any, send: Any) -> None:
    """Close with the code and the reason of the query, and say what comes after."""
    query = parse_qs(scope["query_string"].decode())
    await accept(receive, send)
    await send({"type": "websocket.close", "code": int(query["code"][0]), "reason": query.get("reason", [""])[0]})
    message = await receive()
    note(scope, "disconnect", message["code"], repr(message.get("reason")))
    try:
        await send({"type": "websocket.send", "text": "too late"})
    except Exception as error:  # noqa: BLE001 - which one it is, is what the test asks
        note(scope, "send raised", "OSError" if isinstance(error, OSError) else type(error).__name__)


async def fail_early(scope: Message, receive: Any, send: Any) -> None:
    """Raise before accepting."""
    raise RuntimeError("before the accept")


async def fail_late(scope: Message, receive: Any, send: Any) -> None:
    """Raise after a message."""
    await accept(receive, send)
    await send({"type": "websocket.send", "text": "so far so good"})
    raise RuntimeError("after the accept")


async def return_early(scope: Message, receive: Any, send: Any) -> None:
    """Return without an answer."""


async def return_late(scope: Message, receive: Any, send: Any) -> None:
    """Return without a close."""
    await accept(receive, send)


async def deaf(scope: Message, receive: Any, send: Any) -> None:
    """Accept, and receive nothing until the query's number of seconds has passed; then count what came."""
    await accept(receive, send)
    await asyncio.sleep(float(parse_qs(scope["query_string"].decode())["seconds"][0]))
    count = 0
    while (message := await receive())["type"] == "websocket.receive":
        count += 1
        if message.get("text") == "count":
            await send({"type": "websocket.send", "text": str(count)})
    note(scope, "disconnect", message["code"], repr(message.get("reason")))


async def pour(scope: Message, receive: Any, send: Any) -> None:
    """Send blocks for ever, and note how many the server took."""
    await accept(receive, send)
    count = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": b"x" * 65536})
            count += 1
            note(scope, "sent", count)
    except OSError:
        note(scope, "gone")


async def impatient(scope: Message, receive: Any, send: Any) -> None:
    """Echo, and give up waiting for each message again and again."""
    await accept(receive, send)
    while True:
        try:
            message = await asyncio.wait_for(receive(), 0.0005)
        except asyncio.TimeoutError:
            continue
        if message["type"] == "websocket.disconnect":
            break
        await send({**message, "type": "websocket.send"})


async def slow(scope: Message, receive: Any, send: Any) -> None:
    """Take a moment to accept."""
    note(scope, "asked")
    await asyncio.sleep(0.5)
    await echo(scope, receive, send)


async def misuse(scope: Message, receive: Any, send: Any) -> None:
    """Send what ASGI does not allow, one after another, and say how each was answered."""
    await receive()
    await tell_misuse(
        send,
        scope,
        {"type": "websocket.send", "text": "early"},
        {"type": "websocket.accept", "headers": [(b"sec-websocket-accept", b"x")]},
        {"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]},
        {"type": "http.response.start", "status": 200},
    )
    await send({"type": "websocket.accept"})
    await tell_misuse(
        send,
        scope,
        {"type": "websocket.accept"},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None, "bytes": None},
        {"type": "websocket.send", "text": b"bytes"},
        {"type": "websocket.close", "code": 1005},
        {"type": "websocket.close", "code": 1000, "reason": "x" * 124},
        {"type": "websocket.nothing"},
        {"type": "websocket.http.response.start", "status": 200},
    )
    await send({"type": "websocket.close"})
    await tell_misuse(send, scope, {"type": "websocket.send", "text": "late"})


async def tell_misuse(send: Any, scope: Message, *messages: Message) -> None:
    """Send each message and note the exception."""
    for message in messages:
        try:
            await send(message)
        except Exception as error:  # noqa: BLE001 - as above
            note(scope, "refused:", type(error).__name__, error)
        else:
            note(scope, "accepted:", message)


PATHS = {f"/{function.__name__}": function for function in (
    echo, subprotocol, scope_text, refuse, deny, close, fail_early, fail_late, return_early, return_late, deaf, pour,
    impatient, misuse, slow, hasty,
)}  # fmt: skip


async def app(scope: Message, receive: Any, send: Any) -> None:
    """Serve the path's WebSocket, or an HTTP request that says hello."""
    if scope["type"] == "websocket":
        await PATHS[scope["path"]](scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
