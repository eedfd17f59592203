"""What a process and all its descendants cost: processor time and memory, read from the kernel.

Owns       the list of a server's processes at one moment, their CPU clocks and their smaps.
Never      starts, stops or signals a process.
Invariant  processor time never goes down between two readings while the root lives: what a reaped
           child used stays counted through its parent.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

# Positions in /proc/<pid>/stat after the "(comm)" field, from proc_pid_stat(5).
_PPID, _CUTIME, _CSTIME = 1, 13, 14


@dataclass(frozen=True)
class Memory:
    """The tree's memory in bytes. PSS shares a page among those that map it; RSS counts it for each."""

    pss_bytes: int
    rss_bytes: int


def pids(root: int) -> list[int]:
    """The root and all its living descendants, the root first."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _maybe_stat(int(entry.name))):
            children.setdefault(int(fields[_PPID]), []).append(int(entry.name))
    tree = [root]
    for pid in tree:  # The list grows while it is walked: that is the breadth-first queue.
        tree.extend(children.get(pid, []))
    return tree


def cpu_ns(root: int) -> int:
    """User and system time of the whole tree, with reaped children, in nanoseconds."""
    return sum(process_cpu_ns(pid) + _reaped_cpu_ns(pid) for pid in pids(root))


def memory(root: int) -> Memory:
    """PSS and RSS of the whole tree."""
    pss = rss = 0
    for pid in pids(root):
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended between the listing and the reading.
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        pss += kib["Pss"]
        rss += kib["Rss"]
    return Memory(pss_bytes=pss * 1024, rss_bytes=rss * 1024)


def process_cpu_ns(pid: int) -> int:
    """The CPU clock of a process: utime + stime of all its threads, to the nanosecond.

    /proc/<pid>/stat holds the same sum in ticks of 10 ms. The clock's number is built as the kernel
    and glibc's clock_getcpuclockid(3) do: the inverted pid, then CPUCLOCK_SCHED.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0  # It ended between the listing and the reading; its parent counts it when it reaps.


def _reaped_cpu_ns(pid: int) -> int:
    fields = _maybe_stat(pid)
    if fields is None:
        return 0
    return (int(fields[_CUTIME]) + int(fields[_CSTIME])) * _TICK_NS


def _maybe_stat(pid: int) -> list[str] | None:
    """The fields after the command name, which may itself hold spaces and parentheses."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
