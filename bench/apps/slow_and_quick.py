"""A page that takes 200 ms beside one that takes no time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.apps.hello import app as hello

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.200)
    return hello(environ, start_response)
