"""The ASGI twin of `seen`: answers with what it saw of the request, in the names of CGI."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

Message = MutableMapping[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Echo the request as JSON; bytes are Latin-1 characters in it."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    seen = {
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        **fields(scope["headers"]),
        "body": (await read_body(receive)).decode("latin-1"),
    }
    text = json.dumps(seen).encode()
    headers = [(b"content-type", b"application/json")]
    if scope["method"] in ("HEAD", "CONNECT"):
        headers.append((b"x-seen", text))  # The body has to be left out by the server.
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def read_body(receive: Callable[[], Awaitable[Message]]) -> bytes:
    """The whole body."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body


def fields(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The fields as an environ has them: repetitions are joined."""
    environ: dict[str, str] = {}
    for name, value in headers:
        key = name.decode().upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        text = value.decode("latin-1")
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text
    return environ
