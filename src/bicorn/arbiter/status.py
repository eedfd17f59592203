"""What `bicornctl status` shows: the arbiter and its workers as plain values.

Owns       the names and units of the report (docs/reference/control.md).
Never      changes anything, and costs a worker nothing: it reads the scoreboard and what the kernel has at hand.
Invariant  every value can be written as JSON.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bicorn import __version__
from bicorn.arbiter.outcome import Result
from bicorn.arbiter.policy import Phase
from bicorn.arbiter.recycle import read_rss_bytes
from bicorn.ipc.scoreboard import CurrentRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.arbiter.outcome import Outcome
    from bicorn.arbiter.server import Server


def report(server: Server, workers: Iterable[WorkerHandle], now: float) -> dict[str, Any]:
    """Give the whole report; `now` is monotonic seconds."""
    workers = list(workers)
    turned_into = [handle.turned_into for handle in workers if handle.ready_at is not None]
    return {
        "server": f"bicorn/{__version__}",
        "name": server.proc_name,
        "pid": server.pid,
        "phase": "booting" if server.phase is Phase.RUNNING and not server.has_served else server.phase.value,
        "uptime_s": round(now - server.started_at, 3),
        "generation": server.generation,
        "listeners": [str(listener) for listener in server.LISTENERS],
        # The newest one that is ready knows what the application of this generation asked for.
        "worker_class": (turned_into or [""])[-1] or server.cfg.worker_class_str,
        "workers_wanted": server.num_workers,
        "memory_bytes": read_rss_bytes(server.pid),
        "last_reload": describe_outcome(server.last_reload),
        "last_upgrade": describe_outcome(server.last_upgrade),
        "workers": [describe_worker(handle, now) for handle in workers],
    }


def describe_worker(handle: WorkerHandle, now: float) -> dict[str, Any]:
    """Give one worker; `request` is None while none is inside the application."""
    row = handle.slot.snapshot()
    request = CurrentRequest.of(row)
    current = {"line": request.line, "running_s": round(request.age_s(now), 3)} if request is not None else None
    return {
        "pid": max(0, handle.pid),  # 0 until a template has forked it
        "age": handle.worker.age,
        "generation": handle.generation,
        "state": handle.state.value,
        "uptime_s": round(now - handle.forked_at, 3),
        "silent_s": round(max(0.0, now - max(row["heartbeat_ns"] / 1e9, handle.forked_at)), 3),
        "connections": row["connections"],
        "in_flight": row["in_flight"],
        "requests": row["requests"],
        "request": current,
        "memory_bytes": read_rss_bytes(handle.pid),
    }


def is_under_way(outcome: Outcome | None) -> bool:
    """Tell whether a reload or an upgrade has begun and not ended."""
    return outcome is not None and outcome.result is Result.UNDER_WAY


def describe_outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    """Give how a reload or an upgrade went; None if there was none."""
    if outcome is None:
        return None
    return {
        "result": outcome.result.value,
        "message": outcome.message,
        "seconds_ago": round(max(0.0, time.time() - outcome.time), 3),
    }
