"""What the numbers in a slot of the scoreboard mean; the memory itself is `bicorn._core.Scoreboard`.

Owns       the meaning of Slot.state, and which of the requests of a row is the current one.
Never      decides anything: the arbiter's own record of a worker (arbiter.states) does.
Invariant  the arbiter writes BOOTING before the fork, DRAINING before it tells the worker to drain, and FREE when the
           worker is gone; READY is the worker's own word, and so is the end of one whose arbiter was killed.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class SlotState(enum.IntEnum):
    """What a worker says of itself."""

    FREE = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


@dataclasses.dataclass(frozen=True)
class CurrentRequest:
    """A request that is inside the application; times are nanoseconds of the monotonic clock."""

    line: str  # method and target
    started_ns: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CurrentRequest | None:  # Any: see Slot.snapshot
        """Give the request of a row that is worth a look: of several, the one that runs longest."""
        for name in ("oldest", "request"):
            if row[f"{name}_started_ns"]:
                return cls(row[name], row[f"{name}_started_ns"])
        return None

    def age_s(self, now: float) -> float:
        """Give how long it has been there at a moment of the monotonic clock, in seconds."""
        return max(0.0, now - self.started_ns / 1e9)
