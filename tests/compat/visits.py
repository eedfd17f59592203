"""Visits to a server without a pause, and what became of each.

Owns       one thread that opens a connection a request.
Never      tries again: a request that was not answered with 200 is a failure.
Invariant  after the with block no request is under way.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from harness.server import Server, wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

#: Long for a request that takes a millisecond, short beside the deadline of a test.
PATIENCE_S: Final = 4.0


class Visits:
    """Requests for / one after another, in the background."""

    def __init__(self, server: Server, path: str = "/") -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._server, self._path = server, path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._visit, daemon=True)

    def _visit(self) -> None:
        while not self._over.is_set():
            try:
                answer = self._server.get(self._path, timeout=PATIENCE_S)
                if answer.status != 200:
                    self.failures.append(f"status {answer.status}")
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            self.answered += 1

    def wait_for(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        wanted = self.answered + count
        wait_until(lambda: self.answered >= wanted, f"{count} more answers")

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for(5)
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
