"""The queue of connections that change workers: made by the arbiter, used by the native loops and by asyncio's.

Owns       both ends of the queue, which every worker inherits.
Never      sees a connection: workers put them in and take them out.
Invariant  it outlives generations of workers, so that one that drains hands its idle connections to the next.
"""

from __future__ import annotations

import socket
from typing import Final

#: Bytes that may wait in the queue: a few hundred connections, by what the kernel counts for each.
_BUFFER_BYTES: Final = 1 << 20


class Handover:
    """A pair of connected sockets whose messages stay whole."""

    def __init__(self) -> None:
        put, take = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        put.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        for end in (put, take):
            end.setblocking(False)
        #: Where connections are put in, and where they come out. Only the end of the process closes them.
        self.fds: tuple[int, int] = put.detach(), take.detach()
