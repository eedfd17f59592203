"""The workers that the arbiter knows, and the slots of the scoreboard that they hold.

Owns       the records of living workers, one per pid, and the list of free slots.
Never      forks, signals or waits.
Invariant  a slot belongs to at most one record; it is free again only after the record was removed.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from bicorn.arbiter.policy import WorkerView
from bicorn.arbiter.states import WorkerEvent, WorkerState, advance
from bicorn.ipc.scoreboard import SlotState
from bicorn.ipc.stacks import StackFile

if TYPE_CHECKING:
    from bicorn._core import Scoreboard, Slot
    from bicorn.workers.base import Worker

#: Workers that can live at the same time, the old ones of a reload included. Fixed at start, because the shared
#: memory is made before the first fork. Apache's ServerLimit is 16 × 25 by default, and at most 20,000.
SLOTS_MAX: Final = 1024


@dataclasses.dataclass
class WorkerHandle:
    """A worker as the arbiter sees it; `worker` is the arbiter's copy of the object made before the fork."""

    pid: int
    worker: Worker
    slot: Slot
    generation: int
    forked_at: float
    state: WorkerState = WorkerState.BOOTING
    since: float = 0.0
    ready_at: float | None = None
    failure: str = ""  # why it could not boot, in its own words
    stacks: StackFile = dataclasses.field(default_factory=StackFile)
    due: str = ""  # why it is to be replaced, if it is
    lifetime_s: float = math.inf  # how long it may be ready
    is_heir: bool = False  # it is going to be a template when it has drained
    channel: socket.socket | None = None  # how it is told so
    owed: list[signal.Signals] = dataclasses.field(default_factory=list)  # sent before it was born

    @property
    def is_born(self) -> bool:
        """Whether it has a pid; until a template has forked it, `pid` is its age, negative."""
        return self.pid > 0

    def advance(self, event: WorkerEvent, now: float) -> None:
        """Move to the next state; `since` is when it entered that one."""
        state = advance(self.state, event)
        if state is WorkerState.READY and self.ready_at is None:
            self.ready_at = now
        if state is not self.state:
            self.state, self.since = state, now

    def view(self, awake_since: float) -> WorkerView:
        """Give the record as a value; signs of life from before `awake_since` are not held against it."""
        beat = max(self.slot.heartbeat_ns / 1e9, self.forked_at, awake_since)
        return WorkerView(
            self.pid,
            self.worker.age,
            self.generation,
            self.state,
            self.since,
            beat,
            is_due=bool(self.due),
            was_aborted=self.worker.aborted,
        )


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
        slot.reset()
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

    def views(self, awake_since: float) -> tuple[WorkerView, ...]:
        """Give all records as values, oldest first."""
        return tuple(handle.view(awake_since) for handle in self)
