"""Says that it was called, then waits until the test lets it go on (harness.gate)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer /free at once, anything else when it is released."""
    if environ["PATH_INFO"] != "/free":
        gate = Path(os.environ["GATE"])
        with open(gate / "started", "wb", buffering=0) as started:
            started.write(b"x")
        with open(gate / "release", "rb", buffering=0) as release:
            release.read(1)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"done"]
