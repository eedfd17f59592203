"""The binary upgrade as the old arbiter sees it: a new one is started beside it, with the same listeners (USR2).

Owns       the process of the new arbiter until one of the two has gone, and how the upgrade went.
Never      stops anybody's workers: the arbiter does, when told by `retire`.
Invariant  there is at most one new arbiter, and none while this one is itself the new one of another.

What the new one gets, as from Gunicorn, so that either may take over from the other
    GUNICORN_PID     the pid of the old arbiter
    GUNICORN_FD      the descriptors of the listeners, with commas between them; or, where systemd made them,
    LISTEN_PID/FDS   the same protocol again, on descriptors from 3 on
    BICORN_READY_FD  our own: a pipe on which the new one says that its workers are ready
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from bicorn.arbiter.outcome import Outcome, Result
from bicorn.arbiter.policy import Phase
from bicorn.arbiter.promotion import FD_VARIABLE, PID_VARIABLE, READY_VARIABLE
from bicorn.arbiter.signals import HANDLED
from bicorn.errors import BicornError, ExitCode
from bicorn.net.systemd import LISTEN_FDS_START
from bicorn.unpatched import fork, read, set_handler

if TYPE_CHECKING:
    from bicorn.arbiter.exits import Exit
    from bicorn.arbiter.server import Server
    from bicorn.net.listener import Listener


class UpgradeRefused(BicornError):
    """There is no second arbiter to be had now; the text says why."""


class Upgrade:
    """The new arbiter, if there is one; a duty of the loop."""

    def __init__(self, server: Server, retire: Callable[[], None]) -> None:
        """`retire` is called when the workers of the new arbiter are ready, if the upgrade is one that completes."""
        self.pid = 0
        self.last: Outcome | None = None
        self._server = server
        self._log = server.log
        self._retire = retire
        self._ready_pipe = -1
        self._deadline: float | None = None  # of an upgrade that retires this arbiter by itself

    # -- from start to end ---------------------------------------------------------------------

    def start(self, *, deadline: float | None = None) -> None:
        """Start a new arbiter from the program as it is now; raise UpgradeRefused if there is none to be had.

        With a deadline (seconds of the monotonic clock) the upgrade completes, or is rolled back, by itself.
        """
        if self._server.master_pid:
            raise UpgradeRefused(f"this arbiter is about to replace another (pid {self._server.master_pid})")
        if self._server.phase is not Phase.RUNNING:
            raise UpgradeRefused("this arbiter is stopping")
        if self.pid:
            raise UpgradeRefused(f"a new arbiter (pid {self.pid}) is there already")
        read_end, write_end = os.pipe()
        # A signal for the newborn that came before it has handlers of its own would be queued for a loop it never runs.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = fork()
            if pid == 0:
                self._become_successor(write_end, blocked)
        except OSError as error:
            os.close(read_end)
            raise UpgradeRefused(f"a new arbiter could not be forked: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(write_end)
        os.set_blocking(read_end, False)
        self.pid, self._ready_pipe, self._deadline = pid, read_end, deadline
        self.last = Outcome(Result.UNDER_WAY, f"the new arbiter (pid {pid}) is starting")
        self._log.info("Started the new arbiter (pid: %s)", pid)

    def _become_successor(self, ready_fd: int, blocked: set[int]) -> NoReturn:
        """Never return into the arbiter's loop, whatever happens."""
        server = self._server
        try:
            signal.set_wakeup_fd(-1)
            for signum in HANDLED:
                set_handler(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # It would survive the exec.
            original = server.environment.original
            variables = environment(original, server.pid, server.LISTENERS, ready_fd, by_systemd=server.systemd)
            server.cfg.pre_exec(server)
            replace_process(server.environment.directory, variables)
        except BaseException as error:  # A hook of the user's, or an exec that failed.
            server.log.error("The new arbiter cannot be started", exc_info=error)
        os._exit(ExitCode.FAILED)

    def bury(self, pid: int, ended: Exit) -> bool:
        """Take note of an exit, if it was the new arbiter's."""
        if pid != self.pid:
            return False
        if self.last is not None and self.last.result is not Result.FAILED:
            self.last = Outcome(Result.FAILED, f"the new arbiter (pid {pid}) {ended}; this one serves on")
        assert self.last is not None, "what ends has begun"
        self._log.warning("Upgrade undone: %s", self.last.message)
        self.pid, self._deadline = 0, None
        self._close_pipe()
        return True

    # -- as a duty of the loop -----------------------------------------------------------------

    def fileno(self) -> int:
        return self._ready_pipe

    def wake_at(self) -> float | None:
        return self._deadline

    def attend(self, now: float) -> None:
        if self._ready_pipe >= 0:
            self._listen()
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self.last = Outcome(
                Result.FAILED, f"the new arbiter (pid {self.pid}) was not ready in time (upgrade_timeout)"
            )
            self._log.error("The upgrade is rolled back: %s", self.last.message)
            os.kill(self.pid, signal.SIGTERM)

    def leave_in_child(self) -> None:
        self._close_pipe()

    def _listen(self) -> None:
        try:
            said = read(self._ready_pipe, 1)
        except BlockingIOError:
            return
        self._close_pipe()
        if not said:
            return  # It ended, which its exit says, or it is a server that knows nothing of this pipe.
        self.last = Outcome(Result.DONE, f"the workers of the new arbiter (pid {self.pid}) are ready")
        self._log.info("Upgrade: %s", self.last.message)
        if self._deadline is not None:
            self._deadline = None
            self._retire()

    def _close_pipe(self) -> None:
        if self._ready_pipe >= 0:
            os.close(self._ready_pipe)
            self._ready_pipe = -1


# -- in the forked child ---------------------------------------------------------------------------

#: High enough that no descriptor that is moved out of the way lands where another one has to go.
_AWAY: Final = 256


def environment(
    original: Mapping[str, str], master_pid: int, listeners: Sequence[Listener], ready_fd: int, *, by_systemd: bool
) -> dict[str, str]:
    """Give the environment of the new arbiter, and let it inherit the descriptors that stand in it."""
    variables = {PID_VARIABLE: str(master_pid), READY_VARIABLE: str(ready_fd)}
    os.set_inheritable(ready_fd, True)
    descriptors = [listener.fileno() for listener in listeners]
    if by_systemd:
        if ready_fd < LISTEN_FDS_START + len(descriptors):
            ready_fd = _move_away(ready_fd)
            variables[READY_VARIABLE] = str(ready_fd)
        away = [_move_away(descriptor) for descriptor in descriptors]
        for target, descriptor in enumerate(away, LISTEN_FDS_START):
            os.dup2(descriptor, target, inheritable=True)
        variables |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(descriptors))}
    else:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        variables[FD_VARIABLE] = ",".join(map(str, descriptors))
    return {**original, **variables}


def _move_away(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _AWAY)
    os.set_inheritable(moved, True)
    return moved


def replace_process(directory: str, variables: Mapping[str, str]) -> NoReturn:
    """Run the command line that started this process again."""
    os.chdir(directory)
    # orig_argv keeps what sys.argv loses: `-m bicorn`, -X options, -c scripts.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(variables))  # noqa: S606 - our own command line
