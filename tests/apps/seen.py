"""Answers with what it saw of the request: as the body, and as a field where an answer has no body."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

CGI = ("REQUEST_METHOD", "RAW_URI", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "CONTENT_TYPE", "CONTENT_LENGTH")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Echo the request as JSON; bytes are Latin-1 characters in it."""
    seen = {key: value for key, value in environ.items() if key.startswith("HTTP_") or key in CGI}
    seen["body"] = environ["wsgi.input"].read().decode("latin-1")
    text = json.dumps(seen)
    fields = [("Content-Type", "application/json")]
    if environ["REQUEST_METHOD"] in ("HEAD", "CONNECT"):
        start_response("200 OK", [*fields, ("X-Seen", text)])
        return [text.encode()]  # It has to be left out by the server.
    start_response("200 OK", fields)
    return [text.encode()]
