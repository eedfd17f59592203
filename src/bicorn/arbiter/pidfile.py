"""The file that tells other processes the arbiter's pid.

Owns       one file, from create() to remove().
Never      removes or replaces the file of a process that is alive.
Invariant  whoever reads the path sees a whole pid or no file: it is written beside and renamed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from bicorn.errors import BicornError


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

    def validate(self) -> int | None:
        """Give the pid in the file if that process lives, else None."""
        try:
            pid = int(Path(self.fname).read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, ProcessLookupError, OverflowError):
            return None
        except PermissionError:
            # From kill: it lives and belongs to another user. From open: say so when the file is written.
            return pid if "pid" in locals() else None
        return pid

    def unlink(self) -> None:
        """Remove the file if it is still ours."""
        with contextlib.suppress(OSError, ValueError):
            if int(Path(self.fname).read_text()) == self.pid:
                os.unlink(self.fname)
