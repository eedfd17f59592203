"""The connections of an event loop of Python's, for when somebody is stuck in it.

Owns       what their table is told of its worker.
Never      is needed where the loop turns: then requests and connections are the loop's own business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bicorn._core import Lines

if TYPE_CHECKING:
    from bicorn.workers.base import Worker


def watched_lines(worker: Worker) -> Lines:
    """Give the table of this worker's connections, which are given up at SIGABRT from now on."""
    # What a PROXY header said of a connection stays in its worker, so the connection does too.
    is_movable = worker.cfg.proxy_protocol == "off"
    names = [str(listener) for listener in worker.sockets]
    return Lines(worker.cfg.server_header, worker.handover if is_movable else None, names)
