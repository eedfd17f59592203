"""Where the connections of an asgi worker come from.

Owns       the worker's part of its listening sockets, whether it accepts from them now, and in which way; and what
           becomes of connections when it leaves, or others do (siblings.py).
Never      closes one for good: the worker may listen again, and its siblings do.
Invariant  a connection that was accepted is known to a protocol before the worker can think that nothing is left.

On asyncio the worker accepts by itself (accepting.py), which is also cheaper. On uvloop libuv does, at two thirds of
the price; but it closes what waits in the queue when descriptors have run out. So this looks at how many are left with
each connection and each beat of the worker, and accepts by itself as long as they are scarce.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from bicorn.workers.accepting import Acceptor
from bicorn.workers.siblings import Siblings

if TYPE_CHECKING:
    from bicorn._core import AsgiServer
    from bicorn.config import Settings
    from bicorn.net.listener import Listener
    from bicorn.observe.log import Logger

#: Descriptors are scarce when no more than so many are left; or an eighth of the limit, if that is less. An application
#: that takes more than this between two looks finds the queue in libuv's hands.
SCARCE: Final = 64
SCARCE_PART: Final = 8

Factory = Callable[[], asyncio.Protocol]


class Listening:
    """Accepts, or does not, from all listening sockets of a worker, and from its siblings."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[Listener],
        server: AsgiServer,
        siblings: Siblings | None,
        cfg: Settings,
        log: Logger,
        failed: Callable[[str], None],
    ) -> None:
        """`failed` hears why connections could not be accepted."""
        self._loop = loop
        self._listeners = listeners
        self._server = server
        self._siblings = siblings
        self._cfg = cfg
        self._log = log
        sockets = [listener.sock for listener in listeners]
        self._acceptor = Acceptor(loop, sockets, self._take, failed, is_alone=cfg.workers == 1)
        self._has_server = not isinstance(loop, asyncio.SelectorEventLoop)
        self._is_careful = not self._has_server
        self._is_on = False
        self._is_leaving = False
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
                self._servers.append(await self._serve(len(self._servers)))
        # Either may have changed meanwhile.
        if not self._is_on:
            self.stop()
            return
        if self._siblings is not None:
            self._siblings.open(self._cfg.worker_connections, self._introduce)
        if self._is_careful:
            self._close_servers()
            self._acceptor.start()

    def stop(self) -> None:
        """Accept no more, until started again."""
        self._is_on = False
        self._acceptor.stop()
        self._close_servers()
        if self._siblings is not None:
            self._siblings.shut()

    # -- leaving -------------------------------------------------------------------------------

    async def leave(self, *, for_good: bool) -> None:
        """Take what waits in the queues, so that nothing is reset; siblings get it if there are any.

        `for_good`: the server stops, so nobody else has to be asked.
        """
        self._is_leaving = not for_good
        self._acceptor.accept_waiting()
        await self._wait_for_arrivals()

    def give_idle_away(self) -> None:
        """Let siblings go on with connections that are between two requests."""
        if self._is_leaving and self._siblings is not None:
            self._siblings.give_idle_away(self._server)

    def balance(self) -> None:
        """Let siblings that have fewer connections take some, where this worker is busy."""
        if self._siblings is not None and not self._is_leaving:
            self._siblings.balance(self._server)

    @property
    def is_short(self) -> bool:
        """Whether connections wait that could not be taken for want of descriptors."""
        return self._acceptor.is_short or (self._siblings is not None and self._siblings.is_short)

    async def take_what_nobody_else_will(self) -> bool:
        """Take connections that siblings have given away before they left as well, and those that there were no
        descriptors for; False if there are none.
        """
        took = self._siblings is not None and self._siblings.take_what_nobody_else_will(self._introduce)
        if self._acceptor.is_short:
            self._acceptor.accept_waiting()
            took = took or self._arriving > 0
        await self._wait_for_arrivals()
        return took

    async def _wait_for_arrivals(self) -> None:
        if self._arriving:
            self._all_known.clear()
            await self._all_known.wait()

    # -- by itself -----------------------------------------------------------------------------

    def _take(self, connection: socket.socket, address: Any, listener: int) -> None:  # Any: of socket.accept()
        is_passed_on = (
            self._is_leaving and self._siblings is not None and self._siblings.pass_on(connection, listener, address)
        )
        if not is_passed_on:
            self._introduce(connection, listener, served=False)

    def _introduce(self, connection: socket.socket, listener: int, served: bool) -> None:
        self._arriving += 1
        factory = self._factory(listener, served=served)
        Introduction(self._loop.connect_accepted_socket(factory, connection), self._introduced)
        if self._is_on and not self._has_room():
            # The server says that it is full when it has heard of them all: too late for what waits behind them.
            self._acceptor.stop()

    def _factory(self, listener: int, *, served: bool) -> Factory:
        return functools.partial(self._server.protocol, listener, served)

    def _introduced(self) -> None:
        self._arriving -= 1
        if not self._arriving:
            self._all_known.set()
        if self._is_on and self._is_careful and self._has_room():
            self._acceptor.start()

    def _has_room(self) -> bool:
        return self._server.connections + self._arriving < self._cfg.worker_connections

    # -- by way of libuv -----------------------------------------------------------------------

    async def _serve(self, index: int) -> asyncio.AbstractServer:
        made = functools.partial(self._made, self._factory(index, served=False))
        # A duplicate, because a server closes its socket, and this one is to listen again.
        sock = socket.socket(fileno=os.dup(self._listeners[index].fileno()))
        backlog = self._cfg.backlog
        if sock.family == socket.AF_UNIX:
            create = self._loop.create_unix_server
            # The socket's file would be removed otherwise, which is the arbiter's (Python 3.13).
            known = inspect.signature(create).parameters if sys.version_info >= (3, 13) else {}
            extra: dict[str, Any] = {"cleanup_socket": False} if "cleanup_socket" in known else {}
            return await create(made, sock=sock, backlog=backlog, **extra)
        return await self._loop.create_server(made, sock=sock, backlog=backlog)

    def _made(self, factory: Factory) -> asyncio.Protocol:
        if self._are_descriptors_scarce():
            # Not in here: a server that closes takes the connection with it that it is about to give us.
            self._loop.call_soon(self._take_care)
        return factory()

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
