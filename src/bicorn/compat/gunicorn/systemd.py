"""`gunicorn.systemd`, for embedding programs that are started by systemd."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bicorn.net import systemd

if TYPE_CHECKING:
    from bicorn.interfaces import Log

SD_LISTEN_FDS_START = systemd.LISTEN_FDS_START

__all__ = ["SD_LISTEN_FDS_START", "listen_fds", "sd_notify"]


def listen_fds(unset_environment: bool = True) -> int:
    """Tell how many sockets systemd passed to this process; they begin at SD_LISTEN_FDS_START."""
    environ = os.environ if unset_environment else dict(os.environ)
    return len(systemd.take_listen_fds(environ, os.getpid()))


def sd_notify(state: str, logger: Log, unset_environment: bool = False) -> None:
    """Send a state such as "READY=1" to systemd, if systemd started this process."""
    if not systemd.notify(state) and os.environ.get("NOTIFY_SOCKET"):
        logger.debug("systemd could not be told %r", state)
    if unset_environment:
        os.environ.pop("NOTIFY_SOCKET", None)
