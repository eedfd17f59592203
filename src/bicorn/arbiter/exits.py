"""What a wait status means, and what the log says about it.

Owns       the reading of a status from waitpid, and Gunicorn's lines for it.
Never      logs or waits.
Invariant  an ordinary exit says nothing; every other one says one line.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal

from bicorn.arbiter.policy import ABORT_GRACE_S
from bicorn.arbiter.states import WorkerState


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


def describe(ended: Exit, pid: int, state: WorkerState, *, stopping: bool) -> tuple[int, str] | None:
    """Give level and text of the line about a worker that ended in that state; None if there is nothing to say."""
    if ended.is_clean:
        return None
    if ended.code is not None:
        return logging.ERROR, f"Worker (pid:{pid}) exited with code {ended.code}."
    line = f"Worker (pid:{pid}) was sent {_name(ended.signum)}!"
    if ended.signum == signal.SIGKILL:
        return logging.ERROR, f"{line} {_why_killed(state)}"
    expected = stopping or ended.signum == signal.SIGTERM or state in (WorkerState.DRAINING, WorkerState.QUITTING)
    return logging.INFO if expected else logging.WARNING, line


def _why_killed(state: WorkerState) -> str:
    # Gunicorn guesses at memory even when it sent the signal itself; we know when it was us.
    if state is WorkerState.KILLED:
        return f"It had not stopped in time (graceful_timeout, or {ABORT_GRACE_S:g} s after SIGABRT)."
    return "Perhaps out of memory?"


def _name(signum: int | None) -> str:
    try:
        return signal.Signals(signum or 0).name
    except ValueError:
        return f"signal {signum}"  # A real-time signal has no name.
