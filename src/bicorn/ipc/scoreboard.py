"""What the numbers in a slot of the scoreboard mean; the memory itself is `bicorn._core.Scoreboard`.

Owns       the meaning of Slot.state.
Never      decides anything: the arbiter's own record of a worker (arbiter.states) does.
Invariant  only the worker itself writes its state once it runs; the arbiter writes BOOTING before the fork.
"""

from __future__ import annotations

import enum


class SlotState(enum.IntEnum):
    """What a worker says of itself."""

    FREE = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3
