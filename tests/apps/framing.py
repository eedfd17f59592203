"""Answers whose status and length the query chooses: ?status=204&length=5&blocks=3&bytes=4&field=Name:value."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer `blocks` times `bytes` bytes, as a list, or as an iterator with stream=1."""
    # CONNECT has no query: it comes in a field.
    query = urllib.parse.parse_qs(environ["QUERY_STRING"] or environ.get("HTTP_X_QUERY", ""), keep_blank_values=True)

    def number(name: str, default: int) -> int:
        return int(query.get(name, [str(default)])[0])

    fields = [tuple(field.split(":", 1)) for field in query.get("field", ())]
    if "length" in query:
        fields.append(("Content-Length", query["length"][0]))
    for hint in query.get("hint", ()):
        environ["wsgi.early_hints"]([tuple(hint.split(":", 1))])
    start_response(f"{number('status', 200)} Status", fields)
    blocks = [b"x" * number("bytes", 5)] * number("blocks", 1)
    return iter(blocks) if "stream" in query else blocks
