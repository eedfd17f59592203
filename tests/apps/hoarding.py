"""Takes every descriptor that its process may have, and gives them back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Any

HOARD: list[int] = []


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do so for /take and /give."""
    if environ["PATH_INFO"] == "/take":
        with contextlib.suppress(OSError):
            while True:
                HOARD.append(os.open(os.devnull, os.O_RDONLY))
    elif environ["PATH_INFO"] == "/give":
        while HOARD:
            os.close(HOARD.pop())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"done"]
