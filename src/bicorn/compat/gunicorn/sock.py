"""`gunicorn.sock`, for programs that make the server's listening sockets themselves.

TLS is not in this version, so ssl_context() and ssl_wrap_socket() are not here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bicorn.net.listener import Listener, close_listeners, create_listeners

if TYPE_CHECKING:
    from bicorn.config import Settings
    from bicorn.interfaces import Log

#: The kinds of sockets differ by their address only.
BaseSocket = TCPSocket = TCP6Socket = UnixSocket = Listener

__all__ = ["BaseSocket", "TCP6Socket", "TCPSocket", "UnixSocket", "close_sockets", "create_sockets"]


def create_sockets(conf: Settings, log: Log, fds: Iterable[int] | None = None) -> list[Listener]:
    """Make the listening sockets that the settings name, or take over descriptors."""
    # An address in use is tried five times, a second apart.
    return create_listeners(conf, log, inherited=fds or (), pause=threading.Event().wait)


def close_sockets(listeners: Iterable[Listener], unlink: bool = True) -> None:
    """Close listening sockets and remove the files of unix sockets."""
    close_listeners(listeners, unlink=unlink)
