"""A worker as the arbiter sees it.

Owns       the record of one worker: where it stands, since when, and the arbiter's ends of what leads to it.
Never      decides what happens to the worker.
Invariant  the state moves only by the table (states.py); `since` is when it was entered.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import socket
from typing import TYPE_CHECKING

from bicorn.arbiter.policy import WorkerView
from bicorn.arbiter.states import WorkerEvent, WorkerState, advance
from bicorn.ipc.stacks import StackFile

if TYPE_CHECKING:
    from bicorn._core import Slot
    from bicorn.workers.base import Worker


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
    turned_into: str = ""  # the worker class that its application asked for, if that is not the settings'
    failure: str = ""  # why it could not boot, in its own words
    excused_beat_ns: int = -1  # the sign of life whose age is not held against it any more
    excused_at: float = 0.0  # when that was decided
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

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal, or owe it one until it is born."""
        if self.is_born:
            # Until it is reaped, the pid stays its own: at worst it is a zombie, which takes any signal.
            os.kill(self.pid, signum)
        else:
            self.owed.append(signum)

    def close(self) -> None:
        """Close the arbiter's ends of what leads to it."""
        self.stacks.close()
        if self.channel is not None:
            self.channel.close()

    def advance(self, event: WorkerEvent, now: float) -> None:
        """Move to the next state; `since` is when it entered that one."""
        state = advance(self.state, event)
        if state is WorkerState.READY and self.ready_at is None:
            self.ready_at = now
        if state is not self.state:
            self.state, self.since = state, now

    def excuse(self, now: float) -> None:
        """Begin to be patient anew, but once a sign of life: one that hangs is not kept by a slow arbiter."""
        beat_ns = self.slot.heartbeat_ns
        if beat_ns != self.excused_beat_ns:
            self.excused_beat_ns, self.excused_at = beat_ns, now

    def view(self) -> WorkerView:
        """Give the record as a value."""
        beat = max(self.slot.heartbeat_ns / 1e9, self.forked_at, self.excused_at)
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
