"""Answers with its whole environ as JSON: for each key the type and the value, or what an object can do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

#: Objects are told apart by what PEP 3333 (or Gunicorn) lets applications do with them, not by their classes.
ABILITIES = {
    "wsgi.input": ("read", "readline", "readlines", "__iter__"),
    "wsgi.errors": ("write", "writelines", "flush"),
    "wsgi.file_wrapper": ("__call__",),
    "wsgi.early_hints": ("__call__",),
    "gunicorn.socket": ("getpeername", "getsockname", "fileno", "getsockopt"),
}


def _shown(key: str, value: Any) -> list[Any]:
    if key in ABILITIES:
        return [name for name in ABILITIES[key] if callable(getattr(value, name, None))]
    return [type(value).__name__, list(value) if isinstance(value, tuple) else value]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Dump the environ; of the body its bytes as Latin-1."""
    # Bicorn's own keys have its name in front, so they cannot be taken for anybody else's.
    dump = {key: _shown(key, value) for key, value in environ.items() if not key.startswith("bicorn.")}
    dump["(body)"] = ["str", environ["wsgi.input"].read().decode("latin-1")]
    dump["(type)"] = [type(environ).__name__]
    text = json.dumps(dump)
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Environ", text)])
    return [text.encode()]
