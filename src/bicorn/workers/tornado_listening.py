"""Where the connections of a tornado worker come from.

Owns       whether the worker accepts now, and what becomes of connections when it leaves, or others do (siblings.py).
Never      closes one that can go on, here or elsewhere.
Invariant  no more than worker_connections are open while the worker is there to stay; others wait, or go to siblings.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bicorn.workers.accepting import Acceptor
from bicorn.workers.siblings import Siblings
from bicorn.workers.tornado_stream import Came

if TYPE_CHECKING:
    from bicorn.config import Settings
    from bicorn.net.listener import Listener
    from bicorn.observe.log import Logger
    from bicorn.workers.tornado_server import Server


class Listening:
    """Accepts from all listening sockets of a worker, and takes over from its siblings."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[Listener],
        server: Server,
        siblings: Siblings | None,
        cfg: Settings,
        log: Logger,
        failed: Callable[[str], None],
    ) -> None:
        """`failed` hears why connections could not be accepted."""
        self._listeners = listeners
        self._server = server
        self._siblings = siblings
        self._limit = max(cfg.worker_connections, 1)
        self._log = log
        sockets = [listener.sock for listener in listeners]
        self._acceptor = Acceptor(loop, sockets, self._take, failed, is_alone=cfg.workers == 1)
        self._is_on = False
        self._is_full = False
        self._is_leaving = False
        server.tell_of(closed=self._make_use_of_room, gave=self._take_nothing_back)

    # -- on and off ----------------------------------------------------------------------------

    def start(self) -> None:
        """Accept from now on."""
        self._is_on = True
        self._acceptor.start()
        if self._siblings is not None:
            self._siblings.open(self._limit, self._introduce)

    def stop(self) -> None:
        """Accept no more."""
        self._is_on = False
        self._rest()

    def _rest(self) -> None:
        self._acceptor.stop()
        if self._siblings is not None:
            self._siblings.shut()

    def _rest_if_full(self) -> None:
        if self._is_on and not self._is_full and self._server.connections >= self._limit:
            self._log.debug("%s connections are open (worker_connections): accepting rests", self._limit)
            self._is_full = True
            self._rest()

    def _make_use_of_room(self) -> None:
        if self._is_full and self._server.connections < self._limit:
            self._is_full = False
            if self._is_on:
                self.start()

    # -- connections ---------------------------------------------------------------------------

    def _take(self, connection: socket.socket, address: Any, listener: int) -> None:  # Any: of socket.accept()
        is_passed_on = (
            self._is_leaving and self._siblings is not None and self._siblings.pass_on(connection, listener, address)
        )
        if not is_passed_on:
            self._server.take(connection, address, Came(listener, served=False))
            self._rest_if_full()

    def _introduce(self, connection: socket.socket, listener: int, served: bool) -> None:
        try:
            address = connection.getpeername()
        except OSError:
            connection.close()  # The client has left meanwhile.
            return
        self._server.take(connection, address, Came(listener, served))
        self._rest_if_full()

    # -- leaving -------------------------------------------------------------------------------

    async def leave(self, *, for_good: bool) -> None:
        """Take what waits in the queues, so that nothing is reset; siblings get it if there are any.

        `for_good`: the server stops, so nobody else has to be asked.
        """
        self.stop()
        self._is_leaving = not for_good
        self._acceptor.accept_waiting()
        await asyncio.sleep(0)  # Tornado makes them known to the server in a turn of their own.
        if not self._acceptor.is_short:
            for listener in self._listeners:
                listener.close()

    @property
    def is_short(self) -> bool:
        """Whether connections wait that could not be taken for want of descriptors."""
        return self._acceptor.is_short or (self._siblings is not None and self._siblings.is_short)

    def give_idle_away(self) -> None:
        """Let siblings go on with connections that are between two requests."""
        if self._is_leaving and self._siblings is not None:
            self._siblings.give_idle_away(self._server)

    def _take_nothing_back(self) -> None:
        if self._siblings is not None:
            self._siblings.take_nothing_back()

    def balance(self) -> None:
        """Let siblings that have fewer connections take some, where this worker is busy."""
        if self._siblings is not None and not self._is_leaving:
            self._server.keep_the_rest()
            self._siblings.balance(self._server)

    async def take_what_nobody_else_will(self) -> bool:
        """Take connections that siblings have given away before they left as well; False if there are none."""
        took = self._siblings is not None and self._siblings.take_what_nobody_else_will(self._introduce)
        await asyncio.sleep(0)
        return took
