"""Connections that change workers, as an event loop of asyncio's kind sees it.

Owns       this worker's use of the queue of such connections: when it takes, when it gives, and what it takes last.
Never      reads a byte of a connection: one that was given away is the next worker's from its next byte on.
Invariant  who puts a connection in looks into the queue once more before it ends, so when all workers end together
           nothing stays behind.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from bicorn._core import Handover
from bicorn.ipc.scoreboard import SlotState

if TYPE_CHECKING:
    from bicorn._core import Slot
    from bicorn.net.listener import Listener

#: How long taking rests when descriptors have run out, in seconds.
REST_S: Final = 0.25

#: The part of its time that a worker computes before it gives connections to others.
BUSY: Final = 0.2

#: The least difference to an even share that is worth moving connections for; otherwise a quarter of it is.
SURPLUS_MIN: Final = 8

#: Connections that are moved at a time.
MOVES_MAX: Final = 64

#: How long a worker that has given connections away takes none, in seconds.
GIVEN_S: Final = 0.05


class Giver(Protocol):
    """Who holds connections."""

    @property
    def connections(self) -> int:
        """How many are open."""

    def give_idle_away(self, queue: Handover, most: int | None = None) -> None:
        """Put those that are between two requests into the queue, as far as it takes them."""


#: Gets a connection, the index of its listener, and whether another worker has served a request of it.
Introduce = Callable[[socket.socket, int, bool], object]


class Siblings:
    """The other workers, to whom connections go when this one leaves, and from whom they come when those do."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slot: Slot,
        fds: tuple[int, int],
        listeners: Sequence[Listener],
        failed: Callable[[str], None],
    ) -> None:
        """`failed` hears why connections could not be taken, and may make room."""
        self._loop = loop
        self._failed = failed
        self._slot = slot
        self._queue = Handover(fds, [str(listener) for listener in listeners])
        self._introduce: Introduce | None = None  # while connections are taken
        self._rest: asyncio.TimerHandle | None = None
        self._has_failed = False
        self._looked = time.monotonic()
        self._used = time.process_time()

    def _are_ready(self) -> bool:
        return self._slot.has_sibling(SlotState.READY)

    # -- taking ----------------------------------------------------------------------------------

    def open(self, capacity: int, introduce: Introduce) -> None:
        """Take connections from now on; so many requests can run here at a time."""
        self._slot.take_over(capacity)
        if self._introduce is None:
            self._introduce = introduce
            self._loop.add_reader(self._queue.fileno(), self._take_one)

    def shut(self) -> None:
        """Take none."""
        if self._introduce is not None:
            self._introduce = None
            self._loop.remove_reader(self._queue.fileno())
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _take_one(self) -> None:
        """Take one, and leave the next to others."""
        assert self._introduce is not None, "the queue is watched only while connections are taken"
        try:
            self._take(self._introduce)
        except OSError as error:
            self._take_none_for(REST_S)  # What cannot be taken stays in the queue, which stays readable.
            self._failed(str(error))

    def _take_none_for(self, seconds: float) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._queue.fileno())
        self._rest = self._loop.call_later(seconds, self._loop.add_reader, self._queue.fileno(), self._take_one)

    def _take(self, introduce: Introduce) -> bool:
        taken = self._queue.take()
        if taken is None:
            return False
        fd, served, listener = taken
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        introduce(connection, listener, served)
        return True

    def take_what_nobody_else_will(self, introduce: Introduce) -> bool:
        """Take what is in the queue if no other worker is there for it; False if that is nothing."""
        took = self._has_failed = False
        try:
            while not self._are_ready() and self._take(introduce):
                took = True
        except OSError:
            self._has_failed = True
        return took

    @property
    def is_short(self) -> bool:
        """Whether there is something in the queue that this worker could not take for want of descriptors."""
        return self._has_failed and self._is_something_there()

    def _is_something_there(self) -> bool:
        # Without descriptors, a failure to take does not say so.
        poll = select.poll()
        poll.register(self._queue.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # -- giving ----------------------------------------------------------------------------------

    def give_idle_away(self, server: Giver) -> None:
        """Let others go on with the connections that are between two requests."""
        if self._are_ready():
            server.give_idle_away(self._queue)

    def balance(self, server: Giver) -> None:
        """Move connections to workers that have fewer, where this one has been busy since the last look.

        Clients that open all their connections at once leave most of them to the worker that wakes up first, and keep
        them for hours.
        """
        now, used = time.monotonic(), time.process_time()
        is_busy = used - self._used >= BUSY * (now - self._looked)
        self._looked, self._used = now, used
        if is_busy and self._introduce is not None:
            count, connections = self._slot.siblings(SlotState.READY)
            fair = (server.connections + connections) // (count + 1)
            surplus = server.connections - fair
            if surplus >= max(SURPLUS_MIN, fair // 4):
                server.give_idle_away(self._queue, min(surplus, MOVES_MAX))
                self.take_nothing_back()

    def take_nothing_back(self) -> None:
        """Leave to others what has just been given away."""
        if self._introduce is not None:
            self._take_none_for(GIVEN_S)

    def pass_on(self, connection: socket.socket, listener: int, address: Any) -> bool:  # Any: of socket.accept()
        """Leave a connection that was just accepted to others; False if it has to stay."""
        peer = (address[0], address[1]) if isinstance(address, tuple) else None
        if not self._are_ready() or not self._queue.put(connection.fileno(), False, listener, peer):
            return False
        connection.close()
        return True
