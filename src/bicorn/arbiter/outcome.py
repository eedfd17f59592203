"""How an operation that takes its time went: a reload, a binary upgrade.

Owns       the record that the control interface and the service manager are shown.
Never      decides or logs.
Invariant  a record never changes; what comes next is another one.
"""

from __future__ import annotations

import dataclasses
import enum
import time


class Result(enum.Enum):
    """Where an operation stands; the value is what a person reads."""

    UNDER_WAY = "under way"
    DONE = "done"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One operation as it stands; `time` is when it came to that, in seconds since the epoch."""

    result: Result
    message: str
    time: float = dataclasses.field(default_factory=time.time)


def headline(text: str) -> str:
    """Give the line of an error that says most: the last one of a traceback, else the first."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
