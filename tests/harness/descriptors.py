"""What a process has open, by proc(5).

Never      fails because the process has ended: it has nothing open then.
Invariant  a snapshot; whoever waits for a change asks again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LISTENS = "0A"  # the state of a socket in /proc/net/tcp, TCP_LISTEN


def descriptors(pid: int) -> list[str]:
    """What the open descriptors of a process are."""
    folder = f"/proc/{pid}/fd"
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"{folder}/{name}"))
    return found


def connections(pid: int, port: int) -> int:
    """How many connections to the port a process has open."""
    return len(_sockets(pid, port, is_listening=False))


def listeners(pid: int, port: int) -> int:
    """How many descriptors of a process listen at the port."""
    return len(_sockets(pid, port, is_listening=True))


def _sockets(pid: int, port: int, *, is_listening: bool) -> list[str]:
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and (row[3] == LISTENS) == is_listening}
    return [link for link in descriptors(pid) if link.removeprefix("socket:[").rstrip("]") in inodes]
