"""Answers that differ as an access log sees them; under WATCH_ACCESS it looks at every record, as applications may."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

if "WATCH_ACCESS" in os.environ:
    logging.getLogger("gunicorn.access").addFilter(lambda record: True)

ANSWERS = {
    "/missing": ("404 Not Found", b"no such page"),
    "/empty": ("204 No Content", b""),
    "/moved": ("302 Found", b""),
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Read the body, then answer by the path."""
    received = len(environ["wsgi.input"].read())
    status, body = ANSWERS.get(environ["PATH_INFO"], ("200 OK", b"x" * (10 + received)))
    fields = [("Content-Type", "text/plain"), ("X-Told", 'a "quoted" word'), ("x-told", "the last one counts")]
    if not status.startswith("204"):
        fields.append(("Content-Length", str(len(body))))
    environ["app.object"] = {"key": 'a "value"'}
    start_response(status, fields)
    return [body]
