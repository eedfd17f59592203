"""Writes down which process began and answered which request (harness.load names them), and takes a moment for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

#: Long enough that a process that is killed at any moment holds a request.
SECONDS = 0.005

# Lines shorter than a page, appended, are never mixed with those of other processes.
_journal = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the pid."""
    name = environ.get("HTTP_X_REQUEST", "-")
    os.write(_journal, f"{os.getpid()} began {name}\n".encode())
    time.sleep(SECONDS)
    os.write(_journal, f"{os.getpid()} ended {name}\n".encode())
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
