"""Sockets that systemd made for us, and what it wants to hear.

Owns       the meaning of LISTEN_PID, LISTEN_FDS, WATCHDOG_USEC and NOTIFY_SOCKET (sd_listen_fds(3), sd_notify(3)).
Never      fails because systemd is not there.
Invariant  inherited sockets are claimed once: the variables leave the environment before a worker could see them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Final

from bicorn.errors import ConfigError

LISTEN_FDS_START: Final = 3  # SD_LISTEN_FDS_START of sd-daemon.h
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take_listen_fds(environ: MutableMapping[str, str], pid: int) -> tuple[int, ...]:
    """Give the descriptors that systemd passed to this very process, and forget about them in the environment."""
    if environ.get("LISTEN_PID") != str(pid):
        return ()  # Meant for another process: a shell that started us, or a parent's leftover.
    count = environ.get("LISTEN_FDS", "0")
    for name in _VARIABLES:
        environ.pop(name, None)
    if not (count.isascii() and count.isdecimal()):
        raise ConfigError(f"LISTEN_FDS is {count!r} instead of a number; systemd sets it for socket activation")
    return tuple(range(LISTEN_FDS_START, LISTEN_FDS_START + int(count)))


def take_watchdog(environ: MutableMapping[str, str], pid: int | None) -> float | None:
    """Give the seconds within which systemd wants to hear WATCHDOG=1 (sd_watchdog_enabled(3)), if it does.

    The variables leave the environment. They have to name `pid`; None takes them whomever they name.
    """
    usec, named = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if pid is not None and named and named != str(pid):
        return None
    return int(usec) / 1e6 if usec.isascii() and usec.isdecimal() and int(usec) > 0 else None


def notify(state: str, environ: MutableMapping[str, str] | None = None) -> bool:
    """Send a state such as "READY=1" to systemd; tell whether it was sent."""
    address = (environ if environ is not None else os.environ).get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        # A service manager that hangs must not hang us: the datagram is dropped instead.
        sock.setblocking(False)
        sock.sendto(state.encode("utf-8"), address)
        return True
    return False
