"""The control socket as a duty of the arbiter's loop.

Owns       when the socket is made, made again and removed.
Never      ends or delays the server because of it: a server without a control socket serves as well.
Invariant  the socket is where the configuration that serves wants it; one that does not serve yet moves nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bicorn.arbiter.commands import Commands
from bicorn.arbiter.policy import Phase
from bicorn.arbiter.status import is_under_way
from bicorn.observe.control_path import default_path
from bicorn.observe.control_socket import ControlSocket, ControlSocketError

if TYPE_CHECKING:
    from bicorn.arbiter.arbiter import Arbiter
    from bicorn.arbiter.children import Children
    from bicorn.arbiter.stacks import StackCollector
    from bicorn.config import Settings


class Control:
    """Serves the control interface of one arbiter."""

    def __init__(self, arbiter: Arbiter, workers: Children, collector: StackCollector) -> None:
        self._arbiter = arbiter
        self._commands = Commands(arbiter, workers, collector)
        self._socket = ControlSocket(self._commands.handle)
        self._settings: Settings | None = None

    def open(self) -> None:
        """Make the socket; that there is none is worth a line only to somebody who looks."""
        self._settings = settings = self._arbiter.cfg
        if settings.control_socket_disable:
            return
        try:
            path = self._wanted(settings)
            # During a binary upgrade the one who answers there is the arbiter that we are to replace.
            self._socket.listen(path, settings.control_socket_mode, take_over=self._arbiter.master_pid != 0)
        except ControlSocketError as error:
            self._arbiter.log.debug("No control socket: %s", error)
        else:
            self._arbiter.log.debug("Control socket listening at %s", path)

    def close(self) -> None:
        """Hang up and remove the socket."""
        self._socket.close()

    # -- as a duty of the loop -----------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno()

    def wake_at(self) -> float | None:
        return self._socket.wake_at()

    def attend(self, now: float) -> None:
        self._socket.attend(now)
        self._commands.answer_waiting()
        self._follow_configuration()

    def leave_in_child(self) -> None:
        self._commands.forget_waiting()
        self._socket.leave_in_child()

    def _follow_configuration(self) -> None:
        """Move with a reload, and come back if something removed the file."""
        settings = self._arbiter.cfg
        has_changed = self._settings is not settings and not is_under_way(self._arbiter.last_reload)
        if has_changed and self._differs(settings):
            self._socket.stop_listening()
            self.open()
        elif has_changed:
            self._settings = settings
        elif self._socket.is_lost and self._arbiter.phase is Phase.RUNNING:
            self._socket.stop_listening()
            self.open()

    def _differs(self, settings: Settings) -> bool:
        names = ("control_socket", "control_socket_mode", "control_socket_disable")
        return self._settings is None or any(getattr(settings, name) != getattr(self._settings, name) for name in names)

    def _wanted(self, settings: Settings) -> str:
        if settings.control_socket:
            return os.path.abspath(settings.control_socket)
        return default_path(os.environ, os.geteuid(), self._arbiter.pid)
