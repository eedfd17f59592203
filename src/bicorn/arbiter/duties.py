"""What the arbiter's loop looks after besides its workers: the control socket, stacks that were asked for, systemd.

Owns       the shape that such a duty has, and the one wait for all of them.
Never      decides about a worker's life: policy does.
Invariant  attend() does not block, whatever the other end does; the loop waits only in one place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from bicorn.unpatched import select


class Duty(Protocol):
    """One thing to look after, once in each round of the loop."""

    def fileno(self) -> int:
        """Give a descriptor that is readable when there is something to attend to, or -1."""
        ...

    def wake_at(self) -> float | None:
        """Give the moment (monotonic seconds) at which to attend even if nothing happens."""
        ...

    def attend(self, now: float) -> None:
        """Do what there is to do, without waiting."""
        ...

    def leave_in_child(self) -> None:
        """Give up in a newly forked worker what belongs to the arbiter alone."""
        ...


def register(duties: Iterable[Duty], poll: select.poll) -> None:
    """Let a wait end when one of the duties has something to do."""
    for duty in duties:
        if duty.fileno() >= 0:
            poll.register(duty.fileno(), select.POLLIN)


def earliest(duties: Iterable[Duty], wake_at: float | None) -> float | None:
    """Give the first of all moments to wake at."""
    moments = [wake_at, *(duty.wake_at() for duty in duties)]
    return min((moment for moment in moments if moment is not None), default=None)
