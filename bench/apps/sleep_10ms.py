"""Waits 10 ms before it answers, as for a database: a server is worth as many threads as it has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.apps.hello import app as hello

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(0.010)
    return hello(environ, start_response)
