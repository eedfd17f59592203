"""Where control sockets are: the same answer for the server that makes one and for the command that looks for it.

Owns       the order of the directories, the names of the files in them, the check that a directory is nobody else's.
Never      connects, except to find out whether anybody is left at a socket of a dead process.
Invariant  two servers never share a default path: the name is the arbiter's pid.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bicorn.observe.control_socket import ControlSocketError, is_answered

SUFFIX: Final = ".ctl"
SUN_PATH_BYTES_MAX: Final = 107  # unix(7): sun_path has 108, with its NUL


def directories(environ: Mapping[str, str], uid: int) -> Iterator[Path]:
    """Give where control sockets may be, best first."""
    # systemd makes it for a unit with RuntimeDirectory= and removes it with the unit; several are separated by colons.
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if runtime:
        yield Path(runtime)
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"]) / "bicorn"
    yield Path(f"/run/user/{uid}/bicorn")
    if uid == 0:
        yield Path("/run/bicorn")
    # What is left to a user without a session, in a container for instance.
    yield Path(f"/tmp/bicorn-{uid}")  # noqa: S108 - it is used only if nobody else can write there


def default_path(environ: Mapping[str, str], uid: int, pid: int) -> str:
    """Make the best directory that can be had and give the path in it; raise ControlSocketError."""
    reasons = []
    for directory in directories(environ, uid):
        try:
            _require_private(directory, uid)
        except OSError as error:
            reasons.append(f"{directory}: {error.strerror}")
            continue
        path = directory / f"{pid}{SUFFIX}"
        if len(os.fsencode(path)) <= SUN_PATH_BYTES_MAX:
            _remove_dead(directory)
            return str(path)
        reasons.append(f"{directory}: too long for the path of a socket")
    raise ControlSocketError("; ".join(reasons))


def find_sockets(environ: Mapping[str, str], uid: int) -> list[Path]:
    """Give the sockets of living servers in all the directories, in order."""
    # systemd's directory of a unit is known to the unit only; the shipped one is /run/bicorn.
    candidates = [*directories(environ, uid), Path("/run/bicorn")]
    found = [path for directory in dict.fromkeys(candidates) for path in _sockets_in(directory)]
    return [path for path in found if is_answered(str(path))]


def find_socket_of(pid: int) -> Path | None:
    """Give the control socket of one arbiter, wherever it is: the kernel knows what a process listens on."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(entry.path).removeprefix("socket:[").removesuffix("]"))
    for inode, path in _bound_unix_sockets(pid):
        if inode in inodes and path.endswith(SUFFIX):
            # With PrivateTmp or in a container its file system is another one than ours.
            return Path(path) if os.path.lexists(path) else Path(f"/proc/{pid}/root{path}")
    return None


def _bound_unix_sockets(pid: int) -> Iterator[tuple[str, str]]:
    """Give inode and path of the unix sockets in a process's network namespace (proc_net(5))."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines():
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7].startswith("/"):
                yield fields[6], fields[7]


def _require_private(directory: Path, uid: int) -> None:
    """Make a directory, or see that the one that is there is ours: whoever owns it can put other sockets into it."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(20, "not a directory")
    if status.st_uid not in (uid, 0) or status.st_mode & 0o022:
        raise PermissionError(1, "others can write there")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, "not writable")


def _sockets_in(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == SUFFIX)
    except OSError:
        return []


def _remove_dead(directory: Path) -> None:
    """Remove what servers left behind that were killed: both the process and the listener are gone."""
    for path in _sockets_in(directory):
        if path.stem.isdecimal() and not Path(f"/proc/{path.stem}").exists() and not is_answered(str(path)):
            path.unlink(missing_ok=True)
