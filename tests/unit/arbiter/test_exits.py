"""What wait statuses mean and what is said about them."""

from __future__ import annotations

import logging
import signal

import pytest

from bicorn.arbiter.exits import FAULTS, Exit, Oom, describe
from bicorn.arbiter.states import WorkerState

READY, DRAINING, KILLED = WorkerState.READY, WorkerState.DRAINING, WorkerState.KILLED
CASES = [
    (0, READY, False, None),
    (3 << 8, WorkerState.BOOTING, False, (logging.ERROR, "Worker (pid:7) exited with code 3.")),
    (255 << 8, READY, False, (logging.ERROR, "Worker (pid:7) exited with code 255.")),
    (9, READY, False, (logging.ERROR, "Worker (pid:7) was sent SIGKILL! Perhaps out of memory?")),
    (15, READY, False, (logging.INFO, "Worker (pid:7) was sent SIGTERM!")),
    (10, READY, False, (logging.WARNING, "Worker (pid:7) was sent SIGUSR1!")),
    (6, WorkerState.ABORTED, False, (logging.WARNING, "Worker (pid:7) was sent SIGABRT!")),
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


@pytest.mark.parametrize(
    ("oom", "why"),
    [
        (Oom(None), "Perhaps out of memory?"),
        (Oom(True), "Out of memory: the kernel killed it."),
        (Oom(True, "its limit is 5 MiB"), "Out of memory: the kernel killed it (its limit is 5 MiB)."),
        (Oom(False), "Not by the arbiter, and not for memory, says the cgroup: somebody sent it."),
    ],
)
def test_memory_is_blamed_as_far_as_the_kernel_counts(oom: Oom, why: str) -> None:
    line = describe(Exit(None, signal.SIGKILL), 7, READY, stopping=False, oom=lambda: oom)
    assert line == (logging.ERROR, f"Worker (pid:7) was sent SIGKILL! {why}")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_crash_in_native_code_is_named(fault: int) -> None:
    line = describe(Exit(None, fault), 7, READY, stopping=False)
    assert line is not None and line[0] == logging.ERROR
    assert line[1].startswith(f"Worker (pid:7) was sent {signal.Signals(fault).name}! {FAULTS[fault]}: the fault of")


def test_an_exit_in_words() -> None:
    assert str(Exit(3, None)) == "exited with code 3"
    assert str(Exit(None, signal.SIGKILL)) == "was ended by SIGKILL"
