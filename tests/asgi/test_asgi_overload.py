"""Too much to do for an event loop, and for the threads beside it."""

from __future__ import annotations

import json

from harness.server import Server


def test_no_request_of_a_loop_has_a_deadline(routes: Server) -> None:
    assert json.loads(routes.get("/deadline").body) == ["<Deadline: never>", None, None, None]
