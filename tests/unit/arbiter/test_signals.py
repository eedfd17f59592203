"""The queue of signals and its wake-up pipe, with real signals to this process."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from bicorn.arbiter.signals import HANDLED, PENDING_MAX, SignalQueue


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    """An installed queue; the process gets its handlers back."""
    before = {signum: signal.getsignal(signum) for signum in HANDLED}
    wakeup = signal.set_wakeup_fd(-1)
    made = SignalQueue()
    made.install()
    yield made
    made.leave_in_child()
    signal.set_wakeup_fd(wakeup)
    for signum, handler in before.items():
        signal.signal(signum, handler)


def is_readable(queue: SignalQueue) -> bool:
    """Whether waiting for the queue would end at once."""
    return bool(select.select([queue], [], [], 0)[0])


def test_signals_come_in_order_and_wake(queue: SignalQueue) -> None:
    for signum in (signal.SIGTTIN, signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), signum)
    assert is_readable(queue)
    assert queue.take() == [signal.SIGTTIN, signal.SIGHUP, signal.SIGTERM]
    assert not is_readable(queue)
    assert queue.take() == []


def test_a_flood_is_bounded_and_leaves_room_for_other_signals(queue: SignalQueue) -> None:
    for _ in range(3 * PENDING_MAX):
        os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    taken = queue.take()
    assert taken == [signal.SIGUSR1] * PENDING_MAX + [signal.SIGTERM]


def test_waking_without_a_signal(queue: SignalQueue) -> None:
    queue.wake()
    assert is_readable(queue)
    assert queue.take() == []


def test_waiting_for_some_signals_keeps_all_of_them(queue: SignalQueue) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    assert not queue.wait_for(frozenset({signal.SIGTERM}), 0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    assert queue.wait_for(frozenset({signal.SIGTERM}), 10)
    assert queue.take() == [signal.SIGUSR1, signal.SIGTERM]
