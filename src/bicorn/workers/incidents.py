"""What a worker has to say when there is too much to do.

Owns       the lines about requests that are sent away and connections that cannot be accepted, and how often they come.
Never      decides that there is too much: the loop that serves does, and tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bicorn.observe.tally import Tally

if TYPE_CHECKING:
    from bicorn.observe.log import Logger

#: The shortest time between two lines about requests that were sent away, in seconds: the numbers are the news.
TURNED_AWAY_LINE_S: Final = 1.0
#: The same for connections that could not be accepted. Nothing changes until somebody raises the limit.
ACCEPT_LINE_S: Final = 60.0


class Incidents:
    """Tells the error log of one worker."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._turned_away = Tally(TURNED_AWAY_LINE_S)
        self._accept_failed = Tally(ACCEPT_LINE_S)

    def request_turned_away(self, remote_addr: str, why: str) -> None:
        """A request was answered 503: there is too much to do."""
        if count := self._turned_away.add():
            self._log.warning("%s requests answered 503, the last one of ip=%s: %s", count, remote_addr, why)

    def accept_failed(self, why: str) -> None:
        """A connection could not be accepted; the loop rests for a moment and tries again."""
        if self._accept_failed.add():
            self._log.error("Cannot accept connections: %s; see `ulimit -n`", why)
