"""How many workers `-w auto` means.

Owns       the rule from CPUs to workers, and the reading of what this process may use.
Never      trusts the machine's CPU count: a container of one CPU on a host of 64 must not get 129 workers.
Invariant  everything but `read_usable_cpus` is a pure function of what it is given.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

AUTO: Final = "auto"

# A worker holds a copy of the application, often 100 MiB or more: on a big machine memory ends before CPUs do.
# Who has measured otherwise gives the number.
AUTO_WORKERS_MAX: Final = 64

CGROUP_ROOT: Final = "sys/fs/cgroup"


def auto_workers(usable: int) -> int:
    """Apply Gunicorn's recommendation for sync workers, two for each CPU and one more, up to the bound.

    While one worker of a CPU waits for a database, the other computes; the one more hides the gaps.
    """
    return min(2 * usable + 1, AUTO_WORKERS_MAX)


def explain(usable: int) -> str:
    """Say how the count came about."""
    return f"auto: 2 x {usable} usable CPU{'s' if usable != 1 else ''} + 1, at most {AUTO_WORKERS_MAX}"


def usable_cpus(affinity: int, quotas: Iterable[float]) -> int:
    """Give the CPUs that can be kept busy: the affinity mask, cut by the smallest quota, rounded up, at least 1."""
    return max(1, math.ceil(min([float(affinity), *quotas])))


def quota_of_v2(cpu_max: str) -> float | None:
    """Read cgroup v2's cpu.max: "QUOTA PERIOD" in microseconds, or "max PERIOD" for no limit."""
    quota, _, period = cpu_max.strip().partition(" ")
    return None if quota == "max" else _ratio(quota, period or "100000")


def quota_of_v1(quota_us: str, period_us: str) -> float | None:
    """Read cgroup v1's cpu.cfs_quota_us and cpu.cfs_period_us; a quota of -1 is no limit."""
    return _ratio(quota_us.strip(), period_us.strip())


def _ratio(quota: str, period: str) -> float | None:
    if not quota.isdigit() or not period.isdigit() or int(quota) == 0 or int(period) == 0:
        return None
    return int(quota) / int(period)


def cgroup_paths(proc_self_cgroup: str) -> tuple[str | None, str | None]:
    """Find this process's path in the v2 hierarchy, and in v1's cpu hierarchy, in /proc/self/cgroup."""
    v2 = v1 = None
    for line in proc_self_cgroup.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            v2 = path
        elif "cpu" in controllers.split(","):
            v1 = path
    return v2, v1


def read_usable_cpus(root: Path = Path("/")) -> int:
    """Read the affinity mask and the quotas of this process; what cannot be read limits nothing."""
    return usable_cpus(len(os.sched_getaffinity(0)), _read_quotas(root))


def _read_quotas(root: Path) -> Iterator[float]:
    v2_path, v1_path = cgroup_paths(_read(root / "proc/self/cgroup") or "")
    mount = root / CGROUP_ROOT
    for folder in _upwards(mount, v2_path):
        cpu_max = _read(folder / "cpu.max")
        quota = quota_of_v2(cpu_max) if cpu_max else None
        if quota:
            yield quota
    for controller in ("cpu", "cpu,cpuacct"):
        for folder in _upwards(mount / controller, v1_path):
            quota_us, period_us = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            quota = quota_of_v1(quota_us, period_us) if quota_us and period_us else None
            if quota:
                yield quota


def _upwards(mount: Path, path: str | None) -> Iterator[Path]:
    """Yield the cgroup's folder and those above it, since the limit of a parent binds its children.

    In a container without a cgroup namespace the path is the host's and does not exist below the mount, whose
    root then is the container's own group: going up finds it.
    """
    if path is None:
        return
    folder = mount / path.strip("/")
    yield folder
    while folder != mount and mount in folder.parents:
        folder = folder.parent
        yield folder


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
