"""The file that tells other processes the arbiter's pid.

Owns       one file, from create() to remove().
Never      removes or replaces the file of a process that is alive.
Invariant  whoever reads the path sees a whole pid or no file: it is written beside and renamed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from bicorn.errors import BicornError

#: How much later than its file a process has to have begun before it cannot be the one that wrote it: the kernel gives
#: the moment of boot in whole seconds.
STALE_SLACK_S: Final = 2.0


class PidfileError(BicornError):
    """The pid file cannot be written, or says that the server runs already."""


class Pidfile:
    """A pid file; `fname` and `pid` are Gunicorn's names."""

    def __init__(self, fname: str) -> None:
        self.fname = fname
        self.pid: int | None = None

    def create(self, pid: int) -> None:
        """Write the pid, unless another living process has done so."""
        other = self.validate()
        if other is not None and other != pid:
            raise PidfileError(
                f"pidfile {self.fname!r}: already running on PID {other} (or the file is stale and that PID belongs to "
                "another program: then remove the file)"
            )
        try:
            self._write(pid)
        except OSError as error:
            directory = os.path.dirname(self.fname) or "."
            raise PidfileError(f"pidfile {self.fname!r}: cannot write in {directory!r}: {error.strerror}") from None
        self.pid = pid

    def _write(self, pid: int) -> None:
        descriptor, temporary = tempfile.mkstemp(prefix=".bicorn-pid-", dir=os.path.dirname(self.fname) or ".")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{pid}\n")
                os.fchmod(file.fileno(), 0o644)
            os.replace(temporary, self.fname)
        except OSError:  # A full disk, for one: it has room for the file, but not for what is in it.
            os.unlink(temporary)
            raise

    def rename(self, fname: str) -> None:
        """Move the file to another name, in place of what a process that has gone left there."""
        with contextlib.suppress(FileNotFoundError):  # Somebody removed it: there is nothing to move.
            os.replace(self.fname, fname)
        self.fname = fname

    def validate(self) -> int | None:
        """Give the pid in the file if the process that wrote it lives, else None; raise PidfileError for no file."""
        try:
            status = os.stat(self.fname)
            if not stat.S_ISREG(status.st_mode):
                # A directory cannot be replaced, a device must not be (root could), and a pipe would never be read.
                raise PidfileError(f"pidfile {self.fname!r}: something that is not a file is in the way")
            pid = int(Path(self.fname).read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError, PermissionError):
            return None  # Whoever may not read it, or has no such directory, will hear so when the file is written.
        return pid if _is_alive(pid) and not _began_after(pid, status.st_mtime) else None

    def unlink(self) -> None:
        """Remove the file if it is still ours."""
        with contextlib.suppress(OSError, ValueError):
            if int(Path(self.fname).read_text()) == self.pid:
                os.unlink(self.fname)


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False  # No process; for kill(2) it would be a group of them, or all.
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # It belongs to another user.
    return True


def _began_after(pid: int, moment: float) -> bool:
    """Whether the process is another one that got the number later: after a reboot, or in a new container.

    Unless that is certain (there may be no /proc), it is the one.
    """
    try:
        # The command name may hold spaces and parentheses: fields are counted from its last parenthesis (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return False
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted_at + since_boot > moment + STALE_SLACK_S
