"""Whether the kernel killed a worker for memory: the cgroup counts such kills.

Owns       the place of the counter (cgroup v2's memory.events, v1's memory.oom_control) and its last value.
Never      guesses: without a counter that can be read, nobody is accused.
Invariant  each kill that the kernel counted explains one dead process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bicorn.arbiter.exits import Oom

MOUNT: Final = Path("/sys/fs/cgroup")


class OomKills:
    """Counts how many processes of our cgroup the kernel killed for memory since the last look."""

    def __init__(self, mount: Path = MOUNT, memberships: str | None = None) -> None:
        self._file = _find(mount, _memberships() if memberships is None else memberships)
        self._explained = self._count() or 0

    def explain_one(self) -> Oom:
        """Tell whether a process that just ended by SIGKILL was killed for memory."""
        counted = self._count()
        if counted is None:
            return Oom(None)
        if counted <= self._explained:
            return Oom(False)
        self._explained += 1
        return Oom(True, self._limit())

    def _limit(self) -> str:
        if self._file is None:
            return ""
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                text = (self._file.parent / name).read_text().strip()
            except OSError:
                continue
            # v1 has no word for "none": it says the largest number of pages.
            if text.isdecimal() and int(text) < 2**62:
                return f"the limit of its cgroup is {int(text) // 2**20} MiB"
        return ""

    def _count(self) -> int | None:
        if self._file is None:
            return None
        try:
            lines = self._file.read_text().splitlines()
        except OSError:
            return None
        pairs = (line.split() for line in lines)
        return next((int(pair[1]) for pair in pairs if pair[:1] == ["oom_kill"]), None)


def _memberships() -> str:
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def _find(mount: Path, memberships: str) -> Path | None:
    return next((path for path in _candidates(mount, memberships) if _counts(path)), None)


def _candidates(mount: Path, memberships: str) -> Iterator[Path]:
    """Give where the counter may be: our own cgroup, then the mount itself, which is ours inside of a container."""
    for line in memberships.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield mount / "memory" / path.lstrip("/") / "memory.oom_control"
            yield mount / "memory" / "memory.oom_control"
        elif hierarchy == "0" and not controllers:
            for root in (mount, mount / "unified"):
                yield root / path.lstrip("/") / "memory.events"
            yield mount / "memory.events"


def _counts(path: Path) -> bool:
    try:
        return "oom_kill " in path.read_text()
    except OSError:
        return False
