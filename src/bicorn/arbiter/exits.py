"""What a wait status means, and what the log says about it.

Owns       the reading of a status from waitpid, and the line for it, which begins as Gunicorn's does.
Never      logs or waits.
Invariant  an ordinary exit says nothing; every other one says one line.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from bicorn.arbiter.policy import ABORT_GRACE_S
from bicorn.arbiter.states import WorkerState

ABORTED, KILLED = WorkerState.ABORTED, WorkerState.KILLED


@dataclasses.dataclass(frozen=True)
class Oom:
    """Whether the kernel killed a process for memory, None if nobody can know; and the limit that it ran into."""

    guilty: bool | None
    limit: str = ""


@dataclasses.dataclass(frozen=True)
class Exit:
    """How a process ended: by itself with a code, or by a signal."""

    code: int | None
    signum: int | None

    @classmethod
    def from_status(cls, status: int) -> Exit:
        """Read a status of waitpid."""
        if os.WIFSIGNALED(status):
            return cls(None, os.WTERMSIG(status))
        return cls(os.waitstatus_to_exitcode(status), None)

    @property
    def is_clean(self) -> bool:
        """Whether it ended by itself with 0."""
        return self.code == 0

    def __str__(self) -> str:
        return f"exited with code {self.code}" if self.code is not None else f"was ended by {_name(self.signum)}"


#: Signals that the kernel sends to a process for what it did itself, and what that was.
FAULTS: Final[Mapping[int, str]] = {
    signal.SIGSEGV: "It used memory that it does not have (segmentation fault)",
    signal.SIGBUS: "It used a mapped file beyond its end, or memory that cannot be had (bus error)",
    signal.SIGILL: "It came to an instruction that this CPU does not have",
    signal.SIGFPE: "It divided by zero or the like in native code",
    signal.SIGABRT: "Native code in it called abort()",
}


def describe(
    ended: Exit,
    pid: int,
    state: WorkerState,
    *,
    stopping: bool,
    oom: Callable[[], Oom] = lambda: Oom(None),
    who: str = "Worker",
) -> tuple[int, str] | None:
    """Give level and text of the line about a process that ended in that state; None if there is nothing to say.

    `oom` is asked about a SIGKILL that was not ours, and only then: each kill that was counted explains one death.
    """
    if ended.is_clean:
        return None
    if ended.code is not None:
        return logging.ERROR, f"{who} (pid:{pid}) exited with code {ended.code}."
    line = f"{who} (pid:{pid}) was sent {_name(ended.signum)}!"
    if ended.signum == signal.SIGKILL:
        return logging.ERROR, f"{line} {_why_killed(state, oom)}"
    # An abort of ours that met no handler: the worker was still booting, or its class took it away.
    if (fault := FAULTS.get(ended.signum or 0)) and not (ended.signum == signal.SIGABRT and state in (ABORTED, KILLED)):
        return logging.ERROR, f"{line} {fault}: the fault of an extension module or of a library."
    expected = stopping or ended.signum == signal.SIGTERM or state in (WorkerState.DRAINING, WorkerState.QUITTING)
    return logging.INFO if expected else logging.WARNING, line


def _why_killed(state: WorkerState, oom: Callable[[], Oom]) -> str:
    # Gunicorn guesses at memory even when it sent the signal itself; we know when it was us.
    if state is KILLED:
        return f"It had not stopped in time (graceful_timeout, or {ABORT_GRACE_S:g} s after SIGABRT)."
    verdict = oom()
    if verdict.guilty is None:
        return "Perhaps out of memory?"
    if verdict.guilty:
        return f"Out of memory: the kernel killed it{f' ({verdict.limit})' if verdict.limit else ''}."
    return "Not by the arbiter, and not for memory, says the cgroup: somebody sent it."


def _name(signum: int | None) -> str:
    try:
        return signal.Signals(signum or 0).name
    except ValueError:
        return f"signal {signum}"  # A real-time signal has no name.
