"""Whether the server as a whole stops, told to workers that drain.

Owns       one byte of memory that the arbiter and every worker share.
Never      tells a worker to do anything: a signal does, and a worker that asks learns why.
Invariant  written by the arbiter, before the signals of a stop, or by workers that find it gone; never taken back.
"""

from __future__ import annotations

import mmap


class StopFlag:
    """Made by the arbiter, kept by every worker that it forks."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)  # anonymous and shared: a fork keeps it

    def set(self) -> None:
        """The server stops."""
        self._memory[0] = 1

    def is_set(self) -> bool:
        """Whether it does."""
        return self._memory[0] != 0
