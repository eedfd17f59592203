"""Where the connections of an asgi worker come from.

Owns       the worker's part of its listening sockets: whether it accepts from them now, and in which way.
Never      closes one for good: the worker may listen again, and its siblings do.
Invariant  a connection that was accepted is known to a protocol before the worker can think that nothing is left.

On asyncio the worker accepts by itself (accepting.py), which is also cheaper. On uvloop libuv does, at two thirds of
the price; but it closes what waits in the queue when descriptors have run out. So this looks at how many are left with
each connection and each beat of the worker, and accepts by itself as long as they are scarce.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from bicorn.workers.accepting import Acceptor

if TYPE_CHECKING:
    from bicorn.config import Settings
    from bicorn.net.listener import Listener
    from bicorn.observe.log import Logger

#: Descriptors are scarce when no more than so many are left; or an eighth of the limit, if that is less. An application
#: that takes more than this between two looks finds the queue in libuv's hands.
SCARCE: Final = 64
SCARCE_PART: Final = 8

Factory = Callable[[], asyncio.BaseProtocol]


class Listening:
    """Accepts, or does not, from all listening sockets of a worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[Listener],
        factory: Factory,
        cfg: Settings,
        log: Logger,
        failed: Callable[[str], None],
    ) -> None:
        """`failed` hears why connections could not be accepted."""
        self._loop = loop
        self._listeners = listeners
        self._factory = factory
        self._cfg = cfg
        self._log = log
        sockets = [listener.sock for listener in listeners]
        self._acceptor = Acceptor(loop, sockets, self._introduce, failed, is_alone=cfg.workers == 1)
        self._has_server = not isinstance(loop, asyncio.SelectorEventLoop)
        self._is_careful = not self._has_server
        self._is_on = False
        self._servers: list[asyncio.AbstractServer] = []
        self._serving = asyncio.Lock()
        self._arriving = 0
        self._all_known = asyncio.Event()

    # -- on and off ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Accept from now on."""
        self._is_on = True
        async with self._serving:
            while self._is_on and not self._is_careful and len(self._servers) < len(self._listeners):
                self._servers.append(await self._serve(self._listeners[len(self._servers)]))
        # Either may have changed meanwhile.
        if not self._is_on:
            self.stop()
        elif self._is_careful:
            self._close_servers()
            self._acceptor.start()

    def stop(self) -> None:
        """Accept no more, until started again."""
        self._is_on = False
        self._acceptor.stop()
        self._close_servers()

    async def accept_waiting(self) -> None:
        """Take what waits in the queues, and have it known to protocols; nobody may be left to do so later."""
        self._acceptor.accept_waiting()
        if self._arriving:
            self._all_known.clear()
            await self._all_known.wait()

    # -- by itself -----------------------------------------------------------------------------

    def _introduce(self, connection: socket.socket, _address: object) -> None:
        self._arriving += 1
        Introduction(self._loop.connect_accepted_socket(self._factory, connection), self._introduced)

    def _introduced(self) -> None:
        self._arriving -= 1
        if not self._arriving:
            self._all_known.set()

    # -- by way of libuv -----------------------------------------------------------------------

    async def _serve(self, listener: Listener) -> asyncio.AbstractServer:
        # A duplicate, because a server closes its socket, and this one is to listen again.
        sock = socket.socket(fileno=os.dup(listener.fileno()))
        backlog = self._cfg.backlog
        if sock.family == socket.AF_UNIX:
            create = self._loop.create_unix_server
            # The socket's file would be removed otherwise, which is the arbiter's (Python 3.13).
            known = inspect.signature(create).parameters if sys.version_info >= (3, 13) else {}
            extra: dict[str, Any] = {"cleanup_socket": False} if "cleanup_socket" in known else {}
            return await create(self._made, sock=sock, backlog=backlog, **extra)
        return await self._loop.create_server(self._made, sock=sock, backlog=backlog)

    def _made(self) -> asyncio.BaseProtocol:
        if self._are_descriptors_scarce():
            # Not in here: a server that closes takes the connection with it that it is about to give us.
            self._loop.call_soon(self._take_care)
        return self._factory()

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    # -- from one to the other -----------------------------------------------------------------

    def look(self) -> None:
        """Look at how many descriptors are left; to be called every now and then."""
        if not self._has_server:
            return
        if self._is_careful:
            if self._is_on and not self._are_descriptors_scarce(twice=True):
                self._log.debug("Descriptors are there again: libuv accepts")
                self._is_careful = False
                self._acceptor.stop()
                self._started = self._loop.create_task(self.start())
        elif self._are_descriptors_scarce():
            self._take_care()

    def _take_care(self) -> None:
        if self._is_careful:
            return
        self._log.debug("Descriptors are scarce: accepting with care")
        self._is_careful = True
        self._close_servers()
        if self._is_on:
            self._acceptor.start()

    def _are_descriptors_scarce(self, *, twice: bool = False) -> bool:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        left = min(SCARCE, limit // SCARCE_PART) * (2 if twice else 1)
        try:
            # The kernel gives the lowest number that is free.
            number = os.dup(self._listeners[0].fileno())
        except OSError:
            return True
        os.close(number)
        return number >= limit - left


class Introduction:
    """Makes an accepted connection known to a protocol, by the loop's coroutine for that but without a Task for it."""

    __slots__ = ("_coroutine", "_done")

    def __init__(self, coroutine: Any, done: Callable[[], None]) -> None:  # Any: a coroutine that yields futures
        self._coroutine = coroutine
        self._done = done
        self._go_on(None)

    def _go_on(self, _settled: object) -> None:
        try:
            self._coroutine.send(None).add_done_callback(self._go_on)
        except StopIteration:
            self._done()
        except OSError:
            self._done()  # The client had left already.
