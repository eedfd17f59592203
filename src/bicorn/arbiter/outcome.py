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
    """Give what says most in one line: the first line of an error, or the end of its traceback with what we added."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines[0].startswith("Traceback"):
        return lines[0]
    ours_last = [line for line in lines if not line[0].isspace() and not line.startswith("Traceback")]
    return " ".join(reversed(ours_last[-2:]))
