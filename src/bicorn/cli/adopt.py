"""`bicornctl adopt`: the `gunicorn` launcher that it puts into an environment.

Owns       the launcher's text, and the moves of files around it.
Never      overwrites or deletes a file that it did not write, unless told to with --force, and then keeps a backup.
Invariant  `adopt` followed by `adopt --undo` leaves the directory as it was.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from bicorn.errors import BicornError

LAUNCHER_NAME: Final = "gunicorn"
BACKUP_NAME: Final = "gunicorn.before-bicorn"
#: Found in the first lines of a launcher of ours, whichever version wrote it.
MARKER: Final = "# bicorn: launcher written by `bicornctl adopt`"
_HEAD_BYTES: Final = 1024  # enough for any shebang line (Linux reads 256) and the marker after it


class AdoptError(BicornError):
    """A chore that cannot be done as asked; says what stands in the way."""


def default_bin_dir() -> Path:
    """The directory of this environment's commands: where bicornctl itself runs from, else the interpreter's."""
    started = Path(sys.argv[0])
    if started.name == "bicornctl" and started.exists():
        return started.absolute().parent
    return Path(sys.executable).absolute().parent


def adopt(bin_dir: Path, python: Path, *, force: bool) -> str:
    """Write the launcher; what was done, for the user."""
    launcher, backup = bin_dir / LAUNCHER_NAME, bin_dir / BACKUP_NAME
    if not bin_dir.is_dir():
        raise AdoptError(f"there is no directory {bin_dir}")
    if is_launcher(launcher):
        _write(launcher, python)  # The interpreter may have moved since; writing again costs nothing.
        return f"{launcher} starts Bicorn already."
    if _exists(launcher):
        if not force:
            raise AdoptError(
                f"{launcher} belongs to another package, probably Gunicorn. Uninstall that, or use --force to replace "
                f"the launcher and keep the old one as {BACKUP_NAME}."
            )
        if _exists(backup):
            raise AdoptError(f"{backup} exists from an earlier --force; move it away first, it would be overwritten.")
        # A link, not a rename: at every moment there is a `gunicorn` to start.
        os.link(launcher, backup, follow_symlinks=False)
        _write(launcher, python)
        return f"{launcher} starts Bicorn now. The one before is kept as {backup}; --undo restores it."
    _write(launcher, python)
    return f"{launcher} starts Bicorn now; --undo takes it away."


def undo_adopt(bin_dir: Path) -> str:
    """Take the launcher away and restore what it replaced; what was done, for the user."""
    launcher, backup = bin_dir / LAUNCHER_NAME, bin_dir / BACKUP_NAME
    if _exists(launcher) and not is_launcher(launcher):
        kept = f" The backup {backup} is left as it is." if _exists(backup) else ""
        raise AdoptError(f"{launcher} was not written by bicornctl, so it stays.{kept}")
    if _exists(backup):
        backup.replace(launcher)
        return f"{launcher} is again what it was before Bicorn."
    if not _exists(launcher):
        return f"There is no {launcher} to take away."
    launcher.unlink()
    return f"{launcher} is gone."


def is_launcher(path: Path) -> bool:
    """Whether `path` is a launcher that `adopt` wrote."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return MARKER.encode() in file.read(_HEAD_BYTES)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)  # A dangling link is somebody's file too.


def _write(path: Path, python: Path) -> None:
    """Put the launcher in place in one step, so that nobody can start half of one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_text(python.absolute()))
            os.fchmod(file.fileno(), 0o755)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _text(python: Path) -> str:
    # As pip does it: a shebang line cannot hold blanks and is cut at 127 bytes by old kernels, so a path that would
    # break it is started through the shell, in lines that Python reads as a string.
    path = str(python)
    if len(path) <= 124 and not any(char.isspace() for char in path):
        start = f"#!{path}\n"
    else:
        quoted = path.replace("'", "'\"'\"'")
        start = f"#!/bin/sh\n'''exec' '{quoted}' \"$0\" \"$@\"\n' '''\n"
    return f"{start}{MARKER}\nimport sys\n\nfrom bicorn.cli.main import main\n\nsys.exit(main())\n"
