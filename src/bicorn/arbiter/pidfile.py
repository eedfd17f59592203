"""The file that tells other processes the arbiter's pid.

Owns       one file, from create() to remove().
Never      removes or replaces the file of a process that is alive.
Invariant  whoever reads the path sees a whole pid or no file: it is written beside and renamed.
"""

from __future__ import annotations

import contextlib
import os
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
        directory = os.path.dirname(self.fname) or "."
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=".bicorn-pid-", dir=directory)
        except OSError as error:
            raise PidfileError(f"pidfile {self.fname!r}: cannot write in {directory!r}: {error.strerror}") from None
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{pid}\n")
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, self.fname)
        self.pid = pid

    def rename(self, fname: str) -> None:
        """Move the file to another name, in place of what a process that has gone left there."""
        with contextlib.suppress(FileNotFoundError):  # Somebody removed it: there is nothing to move.
            os.replace(self.fname, fname)
        self.fname = fname

    def validate(self) -> int | None:
        """Give the pid in the file if the process that wrote it lives, else None."""
        try:
            pid = int(Path(self.fname).read_text())
            written_at = os.stat(self.fname).st_mtime
        except (FileNotFoundError, ValueError, PermissionError):
            return None  # Whoever may not read it will hear so when the file is written.
        return pid if _is_alive(pid) and not _began_after(pid, written_at) else None

    def unlink(self) -> None:
        """Remove the file if it is still ours."""
        with contextlib.suppress(OSError, ValueError):
            if int(Path(self.fname).read_text()) == self.pid:
                os.unlink(self.fname)


def _is_alive(pid: int) -> bool:
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
