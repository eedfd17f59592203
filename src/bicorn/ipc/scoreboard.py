"""What the numbers in a slot of the scoreboard mean; the memory itself is `bicorn._core.Scoreboard`.

Owns       the meaning of Slot.state, and which of the requests of a row is the current one.
Never      decides anything: the arbiter's own record of a worker (arbiter.states) does.
Invariant  the arbiter writes BOOTING before the fork, DRAINING before it tells the worker to drain, and FREE when the
           worker is gone; READY is the worker's own word, and so is the end of one whose arbiter was killed.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping
from typing import Any, Final


class SlotState(enum.IntEnum):
    """What a worker says of itself."""

    FREE = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


#: The moments at which a loop and its thread see the same request enter are closer than this, on a busy machine too.
SAME_NS: Final = 100_000_000


@dataclasses.dataclass(frozen=True)
class CurrentRequest:
    """A request that is inside the application; times are nanoseconds of the monotonic clock."""

    line: str  # method and target
    started_ns: int
    #: Among so many it is the one that entered first, and perhaps not the one that holds up the others.
    among: int = dataclasses.field(default=1, compare=False)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CurrentRequest | None:  # Any: see Slot.snapshot
        """Give the request of a row that is worth a look: whose step runs, or else the one that entered first."""
        if row["steps"] and row["request_started_ns"]:
            return cls(row["request"], row["request_started_ns"])
        return next(cls.all_of(row), None)

    @classmethod
    def all_of(cls, row: Mapping[str, Any]) -> Iterator[CurrentRequest]:  # Any: as above
        """Give those that a row shows: of several, the one that entered first and the one that entered last."""
        oldest_ns, newest_ns = row["oldest_started_ns"], row["request_started_ns"]
        if oldest_ns:
            yield cls(row["oldest"], oldest_ns, row["in_flight"])
        if newest_ns and (not oldest_ns or row["in_flight"] > 1):
            yield cls(row["request"], newest_ns)

    def is_same(self, other: CurrentRequest) -> bool:
        """Whether both are one request, which two writers may have seen enter at slightly different moments."""
        return self.line == other.line and abs(self.started_ns - other.started_ns) <= SAME_NS

    def age_s(self, now: float) -> float:
        """Give how long it has been there at a moment of the monotonic clock, in seconds."""
        return max(0.0, now - self.started_ns / 1e9)
