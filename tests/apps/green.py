"""What shows that requests run in greenlets: waits, escapes, children; the path says which."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

#: How the standard library was when this was imported.
PATCHED = socket.socket.__module__ != "socket"


class Escape(BaseException):
    """As GreenletExit and gevent.Timeout are: no Exception, and no end of the process."""


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by the path; the query is a number."""
    path, number = environ["PATH_INFO"], float(environ["QUERY_STRING"] or 0)
    if path == "/escape":
        raise Escape
    if path == "/block":
        end = time.monotonic() + number
        while time.monotonic() < end:
            pass
    if path == "/child":
        program = f"import time; time.sleep({number}); print('child')"
        body = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    elif path == "/patched":
        body = str((PATCHED, environ["wsgi.multithread"])).encode()
    else:
        time.sleep(number)
        body = path.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
