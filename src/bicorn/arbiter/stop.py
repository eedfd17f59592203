"""The end of the server, from the signal or the failure to the last worker.

Owns       how long a stop may take, why it happens, and the exit code that comes of it.
Never      signals or waits.
Invariant  a stop is only ever hurried, never slowed down.
"""

from __future__ import annotations

import dataclasses

from bicorn.arbiter.policy import HURRIED_GRACE_S, KILLED_GRACE_S, Phase


@dataclasses.dataclass
class Stop:
    """A stop under way; times are seconds of the monotonic clock."""

    phase: Phase
    deadline: float  # when what is left is killed
    reason: str | None
    exit_code: int

    @property
    def given_up_at(self) -> float:
        """When the arbiter goes even if a worker is left; init reaps it."""
        return self.deadline + KILLED_GRACE_S

    def hurry(self, now: float) -> bool:
        """End sooner; False if that was asked for already."""
        if self.phase is Phase.QUITTING and self.deadline <= now + HURRIED_GRACE_S:
            return False
        self.phase = Phase.QUITTING
        self.deadline = min(self.deadline, now + HURRIED_GRACE_S)
        return True
