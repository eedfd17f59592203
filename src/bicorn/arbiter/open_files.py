"""How many descriptors the processes may have.

Owns       the soft limit of RLIMIT_NOFILE, which every connection counts against.
Never      lowers it, and never goes beyond what the administrator allows (the hard limit).
Invariant  a change is one line in the log; without a change nothing is said.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bicorn.interfaces import Log


def raise_limit(wanted: int, log: Log) -> None:
    """Allow this process, and the workers that it forks, that many open files, or as many as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if limit <= soft:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError) as error:
        # A sandbox may refuse even what the limits allow. 1024 connections are enough to start with.
        log.warning("The limit of open files stays at %d: %s", soft, error)
    else:
        log.info("The limit of open files is raised from %d to %d", soft, limit)
