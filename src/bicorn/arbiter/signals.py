"""Signals of the arbiter: queued by the handler, taken by the loop.

Owns       the handlers of the arbiter's signals and the pipe that wakes its loop.
Never      does anything in a handler but queue and wake; logging there could deadlock on a lock that the
           interrupted code holds.
Invariant  a signal that arrives between looking at the queue and waiting still ends the wait: the kernel's handler
           writes to the pipe (signal.set_wakeup_fd) before Python runs anything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from types import FrameType
from typing import Final

from bicorn.unpatched import read, select, set_handler, write

#: The signals that mean something to the arbiter, in Gunicorn's order.
HANDLED: Final = (
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCHLD,
)
#: Queued signals; beyond that only kinds that are not waiting yet are added, so TERM always gets in.
PENDING_MAX: Final = 64
_PIPE_READ_BYTES: Final = 4096


class SignalQueue:
    """Signals in the order in which they came; `fileno()` is readable while there may be any."""

    def __init__(self) -> None:
        self._pending: deque[signal.Signals] = deque()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)

    def fileno(self) -> int:
        """Give the read end of the wake-up pipe."""
        return self._read_end

    def install(self) -> None:
        """Take over the arbiter's signals."""
        # The pipe may be full of wake-ups that were not read yet; one more says nothing new.
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for signum in HANDLED:
            set_handler(signum, self._enqueue)

    def _enqueue(self, signum: int, _frame: FrameType | None) -> None:
        if len(self._pending) < PENDING_MAX or signum not in self._pending:
            self._pending.append(signal.Signals(signum))

    def wake(self) -> None:
        """End the loop's wait as a signal would."""
        with contextlib.suppress(BlockingIOError):
            write(self._write_end, b"\0")

    def take(self) -> list[signal.Signals]:
        """Empty the pipe, then the queue."""
        # In this order: a signal that comes in between leaves a byte for the next wait.
        self._empty_pipe()
        taken = []
        while self._pending:
            taken.append(self._pending.popleft())
        return taken

    def wait_for(self, signals: frozenset[signal.Signals], timeout: float) -> bool:
        """Wait until one of these is queued, without taking any; False when the seconds are over."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._read_end, select.POLLIN)
        while not any(signum in signals for signum in self._pending):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
            self._empty_pipe()
        return True

    def _empty_pipe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(read(self._read_end, _PIPE_READ_BYTES)) == _PIPE_READ_BYTES:
                continue

    def leave_in_child(self) -> None:
        """Give a forked child the default handlers, and none of this queue."""
        signal.set_wakeup_fd(-1)
        for signum in HANDLED:
            set_handler(signum, signal.SIG_DFL)
        os.close(self._read_end)
        os.close(self._write_end)
        self._pending.clear()
