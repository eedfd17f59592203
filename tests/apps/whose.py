"""Says which worker answers and what it knows of its client; /work computes, /hold waits (harness.gate)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import gated  # type: ignore[import-not-found]  # beside this file, which is not in a package


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the worker's pid, the client's address and the request's body, or hold."""
    if environ["PATH_INFO"] == "/hold":
        return cast(Iterable[bytes], gated.app(environ, start_response))
    if environ["PATH_INFO"] == "/work":
        until = time.thread_time() + 0.003
        while time.thread_time() < until:
            pass
    port = environ.get("REMOTE_PORT", "-")
    words = [str(os.getpid()), environ["REMOTE_ADDR"] or "-", port, environ["SERVER_PORT"] or "-"]
    body = " ".join(words).encode() + b" " + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
