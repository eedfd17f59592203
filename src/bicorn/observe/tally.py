"""Things that may happen too often for a log line each time.

Owns       how often one of them has happened since the last line about it.
Never      writes a line: whoever counts does, when it is time.
Invariant  the first of a kind gets its line at once; none is left out of the numbers that are told.
"""

from __future__ import annotations

import time


class Tally:
    """Counts one kind of thing, for a line every `interval_s` seconds at most."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._untold = 0
        self._told_at = float("-inf")

    def add(self) -> int:
        """Count one more. Give how many there were since the last line if it is time for the next; otherwise 0."""
        self._untold += 1
        now = time.monotonic()
        if now - self._told_at < self._interval_s:
            return 0
        untold, self._untold, self._told_at = self._untold, 0, now
        return untold
