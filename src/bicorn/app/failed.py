"""What a worker serves under --reload while the application cannot be loaded.

Owns       the answer that shows a developer the traceback.
Never      is used without --reload: a traceback is not for strangers.
Invariant  the answer is complete in itself and is cached by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

# Any: the environ and start_response of PEP 3333, which nothing here reads.
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def failed_app(traceback_text: str) -> WsgiApp:
    """A WSGI application that answers every request with `traceback_text` and status 500."""
    body = traceback_text.encode("utf-8", "backslashreplace")
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("500 Internal Server Error", list(fields))
        return [body]

    return app
