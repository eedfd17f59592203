"""What wait statuses mean and what is said about them."""

from __future__ import annotations

import logging
import signal

import pytest

from bicorn.arbiter.exits import Exit, describe
from bicorn.arbiter.states import WorkerState

READY, DRAINING, KILLED = WorkerState.READY, WorkerState.DRAINING, WorkerState.KILLED
CASES = [
    (0, READY, False, None),
    (3 << 8, WorkerState.BOOTING, False, (logging.ERROR, "Worker (pid:7) exited with code 3.")),
    (255 << 8, READY, False, (logging.ERROR, "Worker (pid:7) exited with code 255.")),
    (9, READY, False, (logging.ERROR, "Worker (pid:7) was sent SIGKILL! Perhaps out of memory?")),
    (15, READY, False, (logging.INFO, "Worker (pid:7) was sent SIGTERM!")),
    (11, READY, False, (logging.WARNING, "Worker (pid:7) was sent SIGSEGV!")),
    (3, DRAINING, False, (logging.INFO, "Worker (pid:7) was sent SIGQUIT!")),
    (2, WorkerState.BOOTING, True, (logging.INFO, "Worker (pid:7) was sent SIGINT!")),
    (40, READY, False, (logging.WARNING, "Worker (pid:7) was sent signal 40!")),
]


@pytest.mark.parametrize(("status", "state", "stopping", "expected"), CASES)
def test_lines_about_workers_that_ended(
    status: int, state: WorkerState, stopping: bool, expected: tuple[int, str] | None
) -> None:
    assert describe(Exit.from_status(status), 7, state, stopping=stopping) == expected


def test_a_kill_of_our_own_is_not_blamed_on_memory() -> None:
    line = describe(Exit(None, signal.SIGKILL), 7, KILLED, stopping=False)
    assert line is not None and line[1].startswith("Worker (pid:7) was sent SIGKILL! It had not stopped")


def test_an_exit_in_words() -> None:
    assert str(Exit(3, None)) == "exited with code 3"
    assert str(Exit(None, signal.SIGKILL)) == "was ended by SIGKILL"
