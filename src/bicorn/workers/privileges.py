"""Giving up root.

Owns       the order of the system calls: groups first, because the user that comes next may not set them.
Never      changes anything when the ids are already the wanted ones.
Invariant  after set_owner() returned, the process runs as that user and group.
"""

from __future__ import annotations

import os
import pwd

from bicorn.errors import ConfigError


def set_owner(uid: int, gid: int, *, initgroups: bool) -> None:
    """Become user `uid` in group `gid`; with `initgroups`, in all groups that the user database lists for it."""
    try:
        if initgroups and (name := _name_of(uid)) is not None:
            os.initgroups(name, gid)
        if gid != os.getgid():
            os.setgid(gid)
        if uid != os.getuid():
            os.setuid(uid)
    except PermissionError:
        raise ConfigError(
            f"user, group: this process (user {os.geteuid()}) may not become user {uid} in group {gid}. "
            "Start the server as root, or leave user and group out"
        ) from None


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None  # A user without a name has no groups to look up; containers run such.
