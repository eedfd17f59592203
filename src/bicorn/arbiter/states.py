"""The life of one worker, as the arbiter sees it.

Owns       the states, the events and the table of legal moves.
Never      forks, signals, waits, logs, or reads a clock.
Invariant  a pid that the arbiter forked has exactly one state until it is REAPED.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class WorkerState(enum.Enum):
    """Where a worker stands; the value is what the scoreboard and a person read."""

    BOOTING = "booting"  # forked; has not yet said that it accepts
    READY = "ready"  # accepting connections
    DRAINING = "draining"  # told to stop; finishing what it holds
    QUITTING = "quitting"  # told to stop at once
    ABORTED = "aborted"  # missed its heartbeat; SIGABRT sent
    KILLED = "killed"  # SIGKILL sent; only the kernel can answer now
    REAPED = "reaped"  # waitpid has returned; the record may be dropped


class WorkerEvent(enum.Enum):
    """What can happen to a worker."""

    SAID_READY = "said ready"
    TOLD_TO_DRAIN = "told to drain"
    TOLD_TO_QUIT = "told to quit"
    HEARTBEAT_MISSED = "heartbeat missed"
    KILL_SENT = "kill sent"
    EXITED = "exited"


class IllegalTransition(RuntimeError):
    """An event met a state that has no cell for it: a bug of the caller."""


_S, _E = WorkerState, WorkerEvent

# Read a row as: in this state, on this event, to that state. A pair that is not here is a bug in the caller,
# so advance() raises instead of guessing. SAID_READY stands in every row of a living worker: the message waits
# in a pipe while the arbiter may already have told the worker something else.
TRANSITIONS: Final[Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]]] = {
    _S.BOOTING: {
        _E.SAID_READY: _S.READY,
        _E.TOLD_TO_DRAIN: _S.DRAINING,
        _E.TOLD_TO_QUIT: _S.QUITTING,
        _E.HEARTBEAT_MISSED: _S.ABORTED,
        _E.KILL_SENT: _S.KILLED,
        _E.EXITED: _S.REAPED,
    },
    _S.READY: {
        _E.SAID_READY: _S.READY,
        _E.TOLD_TO_DRAIN: _S.DRAINING,
        _E.TOLD_TO_QUIT: _S.QUITTING,
        _E.HEARTBEAT_MISSED: _S.ABORTED,
        _E.KILL_SENT: _S.KILLED,
        _E.EXITED: _S.REAPED,
    },
    _S.DRAINING: {
        _E.SAID_READY: _S.DRAINING,
        _E.TOLD_TO_QUIT: _S.QUITTING,
        _E.KILL_SENT: _S.KILLED,
        _E.EXITED: _S.REAPED,
    },
    _S.QUITTING: {
        _E.SAID_READY: _S.QUITTING,
        _E.KILL_SENT: _S.KILLED,
        _E.EXITED: _S.REAPED,
    },
    _S.ABORTED: {
        _E.SAID_READY: _S.ABORTED,
        _E.KILL_SENT: _S.KILLED,
        _E.EXITED: _S.REAPED,
    },
    _S.KILLED: {
        _E.SAID_READY: _S.KILLED,
        _E.EXITED: _S.REAPED,
    },
    _S.REAPED: {},
}

#: States of a worker that serves or is about to.
SERVING: Final = frozenset({_S.BOOTING, _S.READY})


def advance(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """Give the state after the event, or raise IllegalTransition."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"a worker that is {state.value} cannot be {event.value}") from None
