"""Which requests of a tornado worker are inside the application, as its row of the scoreboard shows them.

Owns       the exchanges that have entered the application and have not left it, in the order in which they came.
Never      looks at a clock or a byte: the row takes the time.
Threads    with WSGI and `threads`, requests enter in a thread of the pool and leave in the loop's.
Invariant  an exchange that has entered leaves exactly once: with its answer, or with its connection.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bicorn._core import Slot
    from bicorn.workers.tornado_exchange import Exchange


class Inside:
    """The requests that the application is busy with."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._lock = threading.Lock()
        self._exchanges: dict[Exchange, int] = {}  # and when each of them entered
        self._shown: Exchange | None = None

    def enter(self, exchange: Exchange) -> None:
        """Show a request whose application is about to be called."""
        line = exchange.start_line
        with self._lock:
            self._exchanges[exchange] = self._slot.enter_request(line.method, _shown(line.path), exchange.ready_ns)
            if len(self._exchanges) > 1:
                self._show_oldest()

    def leave(self, exchange: Exchange, status: int) -> None:
        """Take note that a request has its answer, or needs none any more."""
        with self._lock:
            entered_ns = self._exchanges.pop(exchange, None)
            if entered_ns is None:
                return
            self._slot.leave_request(entered_ns, status)
            if self._exchanges:
                self._show_oldest()
            elif self._shown is not None:
                self._shown = None
                self._slot.show_oldest(0, "", "")

    def _show_oldest(self) -> None:
        oldest = next(iter(self._exchanges))
        if oldest is not self._shown:
            self._shown = oldest
            line = oldest.start_line
            self._slot.show_oldest(self._exchanges[oldest], line.method, _shown(line.path))


def _shown(target: str) -> str:
    """Give a request target as a log may show it: Tornado lets controls through."""
    return target if target.isascii() and target.isprintable() else target.encode("unicode_escape").decode("ascii")
