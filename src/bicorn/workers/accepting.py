"""Accepting connections in an event loop of asyncio's kind, whatever happens to descriptors.

Owns       when to accept from which listening sockets, how many at a time, and when to rest.
Never      closes a listening socket, or knows what becomes of a connection.
Invariant  a connection that cannot be taken stays in the listen queue: it is neither closed nor forgotten.

What the loops bring along does not hold that. When descriptors have run out, libuv closes what waits in the queue,
Tornado tries again without a pause, and asyncio rests for a second with a traceback for each, and goes on after it even
if its server was closed meanwhile.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

#: How long accepting rests when the process or the machine is out of descriptors or memory, in seconds; as in the
#: native loop.
ACCEPT_REST_S: Final = 0.25

#: Connections that one worker of several takes in one turn of its loop, to leave some to the others; and one alone.
ACCEPTS_PER_TURN: Final = 8
ACCEPTS_PER_TURN_ALONE: Final = 64
#: Connections taken from a listen queue when a worker leaves: twice the default backlog, so that what waited is served,
#: and a flood cannot hold the worker up; as in the native loop.
DRAINED_ACCEPTS_MAX: Final = 4096

#: Takes a connection, with the address of its other end and the index of its listening socket. Any: what
#: socket.accept() gives.
Take = Callable[[socket.socket, Any, int], object]


class Acceptor:
    """Accepts from a worker's listening sockets."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        take: Take,
        failed: Callable[[str], None],
        *,
        is_alone: bool,
    ) -> None:
        """`take` gets each connection; `failed` hears why none could be; `is_alone`: no sibling accepts here."""
        self._loop = loop
        self._sockets = sockets
        self._take = take
        self._failed = failed
        self._per_turn = ACCEPTS_PER_TURN_ALONE if is_alone else ACCEPTS_PER_TURN
        self._is_watching = False
        self._has_failed = False
        self._rest: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept from now on."""
        if not self._is_watching and self._rest is None:
            self._watch()

    def stop(self) -> None:
        """Accept no more, until started again."""
        self._ignore()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def accept_waiting(self) -> None:
        """Take what waits already, stopped or not: with nobody left to accept, the end of the socket resets it.

        What there are no descriptors for is tried again, until there are: `is_short` says so.
        """
        self.stop()
        self._has_failed = False
        for index in range(len(self._sockets)):
            for _ in range(DRAINED_ACCEPTS_MAX):
                if not self._accept_one(index):
                    break
        if self.is_short:
            self._rest = self._loop.call_later(ACCEPT_REST_S, self.accept_waiting)

    @property
    def is_short(self) -> bool:
        """Whether somebody waits in a queue who could not be taken when what waits was to be."""
        return self._has_failed and self._does_somebody_wait()

    def _does_somebody_wait(self) -> bool:
        # Without descriptors, accept() does not say whether there is anything to accept.
        poll = select.poll()
        for sock in self._sockets:
            if sock.fileno() >= 0:
                poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))

    def _watch(self) -> None:
        self._is_watching = True
        for index, sock in enumerate(self._sockets):
            self._loop.add_reader(sock.fileno(), self._accept, index)

    def _ignore(self) -> None:
        if self._is_watching:
            self._is_watching = False
            for sock in self._sockets:
                self._loop.remove_reader(sock.fileno())

    def _accept(self, index: int) -> None:
        for _ in range(self._per_turn):
            # Whoever took the last one may have stopped us.
            if not self._is_watching or not self._accept_one(index):
                return

    def _accept_one(self, index: int) -> bool:
        """Accept one connection; False if there is none, or none can be had."""
        try:
            connection, address = self._sockets[index].accept()
        except (BlockingIOError, InterruptedError):
            return False
        except (ConnectionError, PermissionError):
            return True  # That client left while it waited, or a firewall forbids it: the next one may be fine.
        except OSError as error:
            self._rest_from_accepting(error)
            return False
        connection.setblocking(False)
        self._take(connection, address, index)
        return True

    def _rest_from_accepting(self, error: OSError) -> None:
        """Descriptors or memory have run out: trying again at once would only use up the processor."""
        self._has_failed = True
        self._failed(error.strerror or str(error))
        if self._is_watching:
            self._ignore()
            self._rest = self._loop.call_later(ACCEPT_REST_S, self._resume)

    def _resume(self) -> None:
        self._rest = None
        self._watch()
