"""A response of 64 KiB, the size of a page or a small picture, as one bytes object."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BODY = b"0123456789abcdef" * 4096


def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response(
        "200 OK",
        [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(len(BODY))),
        ],
    )
    return [BODY]
