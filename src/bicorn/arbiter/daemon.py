"""Leaving the terminal that started the server.

Owns       the double fork and what becomes of the standard streams.
Never      closes another descriptor: listeners of systemd and log files stay.
Invariant  after daemonize() the process is no session leader, so it can never acquire a terminal again.
"""

from __future__ import annotations

import os
from typing import Final

DAEMON_UMASK: Final = 0o022
_STREAMS: Final = (0, 1, 2)


def daemonize(*, keep_redirected_streams: bool) -> None:
    """Go on in a grandchild of this process; this process exits with 0."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.umask(DAEMON_UMASK)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in _STREAMS:
        # With enable_stdio_inheritance, output that the caller sent to a file stays there; a terminal never does.
        if stream == 0 or not keep_redirected_streams or _is_terminal(stream):
            os.dup2(null, stream)
    if null not in _STREAMS:
        os.close(null)


def _is_terminal(stream: int) -> bool:
    try:
        return os.isatty(stream)
    except OSError:
        return True  # Closed: it has to be opened on something all the same.
