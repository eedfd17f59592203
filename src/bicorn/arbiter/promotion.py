"""The binary upgrade as the new arbiter sees it: started beside an old one, it takes over when that has gone.

Owns       what the old arbiter handed over in the environment, and the watch for its end.
Never      touches the old arbiter or its workers.
Invariant  the variables leave the environment before an application could hand them to another server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, MutableMapping
from typing import Final

from bicorn.errors import ConfigError
from bicorn.unpatched import write

PID_VARIABLE: Final = "GUNICORN_PID"
FD_VARIABLE: Final = "GUNICORN_FD"
READY_VARIABLE: Final = "BICORN_READY_FD"
#: Where a kernel has no pidfd_open(2), before Linux 5.3.
LOOK_INTERVAL_S: Final = 1.0


def is_upgrade(environ: MutableMapping[str, str]) -> bool:
    """Whether this process was started by an arbiter that it is to replace."""
    return PID_VARIABLE in environ


class Predecessor:
    """The old arbiter, if there is one; a duty of the loop."""

    def __init__(self, environ: MutableMapping[str, str], on_gone: Callable[[], None]) -> None:
        """Take the variables out of `environ`; `on_gone` is called once, when the old arbiter has ended."""
        self.pid = _number(environ.pop(PID_VARIABLE, ""), PID_VARIABLE)
        listeners = environ.pop(FD_VARIABLE, "")
        #: Descriptors of its listeners; none where systemd's protocol is used.
        self.listen_fds = [_number(text, FD_VARIABLE) for text in listeners.split(",") if text] if self.pid else []
        ready_fd = environ.pop(READY_VARIABLE, "")
        self._ready_fd = _number(ready_fd, READY_VARIABLE) if self.pid and ready_fd else -1
        self._on_gone = on_gone
        self._pidfd = -1
        self._looked_at = 0.0
        if self._ready_fd >= 0:
            os.set_inheritable(self._ready_fd, False)
        if self.pid:
            with contextlib.suppress(OSError, AttributeError):
                # The pid may have been given to another process if the old arbiter has gone already; getppid() tells.
                self._pidfd = os.pidfd_open(self.pid)

    def tell_ready(self) -> None:
        """Say that the workers are ready; the first call counts."""
        if self._ready_fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                write(self._ready_fd, b"\1")
            os.close(self._ready_fd)
            self._ready_fd = -1

    # -- as a duty of the loop -----------------------------------------------------------------

    def fileno(self) -> int:
        return self._pidfd

    def wake_at(self) -> float | None:
        return self._looked_at + LOOK_INTERVAL_S if self.pid and self._pidfd < 0 else None

    def attend(self, now: float) -> None:
        self._looked_at = now
        if self.pid and os.getppid() != self.pid:
            self.pid = 0
            self._close()
            self._on_gone()

    def leave_in_child(self) -> None:
        self._close()
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1

    def _close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _number(text: str, variable: str) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"{variable} is {text!r} instead of a number; only an arbiter that is replaced sets it")
    return int(text or 0)
