"""The workers that the arbiter knows, and the slots of the scoreboard that they hold.

Owns       the records of living workers, one per pid, and the list of free slots.
Never      forks, signals or waits.
Invariant  a slot belongs to at most one record; it is free again only after the record was removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from bicorn.ipc.scoreboard import SlotState

if TYPE_CHECKING:
    from bicorn._core import Scoreboard, Slot
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.arbiter.policy import WorkerView

#: Workers that can live at the same time, the old ones of a reload included. Fixed at start, because the shared
#: memory is made before the first fork. Apache's ServerLimit is 16 × 25 by default, and at most 20,000.
SLOTS_MAX: Final = 1024


class Children:
    """Registry of the living workers."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard
        # Popped from the end: low numbers first, so that a person finds small servers at the top of the board.
        self._free = list(range(len(scoreboard) - 1, -1, -1))
        self._by_pid: dict[int, WorkerHandle] = {}

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(sorted(self._by_pid.values(), key=lambda handle: handle.worker.age))

    @property
    def slots_free(self) -> int:
        """How many more workers fit."""
        return len(self._free)

    def slot(self, index: int) -> Slot:
        """Give a slot by its number."""
        return self._scoreboard.slot(index)

    def take_slot(self) -> Slot:
        """Give a free slot with everything in it zero; IndexError if there is none."""
        slot = self._scoreboard.slot(self._free.pop())
        slot.take()
        return slot

    def free_slot(self, slot: Slot) -> None:
        """Take back the slot of a worker that is gone or was never forked."""
        assert slot.index not in self._free, "a slot can be freed only once"
        slot.state = SlotState.FREE  # Siblings look for somebody to hand connections to.
        self._free.append(slot.index)

    def add(self, handle: WorkerHandle) -> None:
        """Record a worker that was just forked."""
        assert handle.pid not in self._by_pid, "the kernel gave a pid that was not reaped"
        self._by_pid[handle.pid] = handle

    def born(self, age: int, pid: int) -> WorkerHandle | None:
        """Give the worker of that age its pid, unless it was given up meanwhile."""
        handle = self._by_pid.pop(-age, None)
        if handle is not None:
            handle.pid = handle.worker.pid = handle.slot.pid = pid
            self.add(handle)
        return handle

    def find(self, pid: int) -> WorkerHandle | None:
        """Give the record of a pid, if it is a worker of ours."""
        return self._by_pid.get(pid)

    def remove(self, pid: int) -> WorkerHandle | None:
        """Forget a reaped worker and free its slot; None if the pid was no worker of ours."""
        handle = self._by_pid.pop(pid, None)
        if handle is not None:
            self.free_slot(handle.slot)
        return handle

    def excuse(self, now: float) -> None:
        """Hold nobody's silence up to now against it."""
        for handle in self:
            handle.excuse(now)

    def views(self) -> tuple[WorkerView, ...]:
        """Give all records as values, oldest first."""
        return tuple(handle.view() for handle in self)

    def leave_in_child(self) -> None:
        """Close in a forked child what leads to its siblings."""
        for handle in self:
            handle.close()
