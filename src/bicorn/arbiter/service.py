"""What the service manager is told (sd_notify(3)), as a duty of the arbiter's loop.

Owns       what was said last, and the moments at which something has to be said again.
Never      says READY=1 before workers were ready, and never feeds the watchdog for a server that serves nobody.
Invariant  each RELOADING=1 is followed by a READY=1, whatever came of the reload: the manager would wait for ever.

In a binary upgrade two arbiters live, and the manager believes the one that it takes for the main process. The old one
speaks until it says which one goes on; the new one says nothing about the service until the old one has gone, but feeds
the watchdog as soon as it serves, since the old one may take its time to drain.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Final

from bicorn.arbiter.outcome import Outcome, Result
from bicorn.arbiter.policy import Phase
from bicorn.arbiter.states import WorkerState
from bicorn.arbiter.status import is_under_way
from bicorn.net import systemd

if TYPE_CHECKING:
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.arbiter.server import Server

#: While requests are still answered at a stop, the manager is asked for more time this often, and for this much: an
#: arbiter that hangs asks no more, and is killed.
EXTEND_INTERVAL_S: Final = 5.0
EXTEND_BY_S: Final = 15.0
#: A manager that does not listen is told again this often, and at most this much; what is older is forgotten.
RETRY_INTERVAL_S: Final = 0.5
UNSENT_MAX: Final = 16
STATUS_CHARACTERS_MAX: Final = 300  # `systemctl status` shows one line


class Service:
    """Tells the manager, if there is one, how the server is."""

    def __init__(self, server: Server, workers: Iterable[WorkerHandle], environ: MutableMapping[str, str]) -> None:
        self._server = server
        self._workers = workers
        self._is_managed = bool(environ.get("NOTIFY_SOCKET"))
        # The variable names the arbiter that was started first; it means its successors of binary upgrades as well.
        watched_pid = None if server.master_pid else server.pid
        self._watchdog_s = systemd.take_watchdog(environ, watched_pid) if self._is_managed else None
        self._fed_at = self._extended_at = self._tried_at = 0.0
        self._said_ready = self._said_reloading = self._has_handed_over = False
        self._unsent: deque[str] = deque(maxlen=UNSENT_MAX)
        self._status = ""
        self._reload: Outcome | None = None

    def begin_stop(self) -> None:
        """Say that the server ends, or which arbiter goes on with it."""
        if self._server.master_pid:
            return  # The old arbiter is the service, and goes on.
        if self._server.reexec_pid:
            # A service whose main process ends has ended, unless the manager knows which one goes on.
            self._say(f"MAINPID={self._server.reexec_pid}")
            self._has_handed_over = True
        else:
            self._extended_at = time.monotonic()
            self._say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={EXTEND_BY_S * 1e6:.0f}")

    # -- as a duty of the loop -----------------------------------------------------------------

    def fileno(self) -> int:
        return -1

    def wake_at(self) -> float | None:
        moments = []
        if not self._is_managed:
            return None
        if self._watchdog_s is not None and not self._has_handed_over:
            moments.append(self._fed_at + self._watchdog_s / 2)
        if self._server.phase is not Phase.RUNNING and not self._has_handed_over:
            moments.append(self._extended_at + EXTEND_INTERVAL_S)
        if self._unsent:
            moments.append(self._tried_at + RETRY_INTERVAL_S)
        return min(moments, default=None)

    def attend(self, now: float) -> None:
        if not self._is_managed:
            return
        self._tried_at = now
        self._send()
        if self._has_handed_over:
            return
        if not self._server.master_pid:
            self._tell_of_reloads()
            self._tell_of_readiness()
            self._tell_status()
            self._ask_for_time(now)
        if self._watchdog_s is not None and now >= self._fed_at + self._watchdog_s / 2:
            self._fed_at = now
            if self._is_healthy(now):
                systemd.notify("WATCHDOG=1")  # Not said again: what counts is that it comes now.

    def leave_in_child(self) -> None:
        self._is_managed = False

    # -- what there is to say ------------------------------------------------------------------

    def _tell_of_reloads(self) -> None:
        outcome = self._server.last_reload
        if outcome is not self._reload:
            self._reload = outcome
            if not self._said_reloading:
                # A reload may have begun and failed since the last round; with Type=notify-reload both are waited for.
                self._said_reloading = True
                self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if self._said_reloading and not is_under_way(outcome):
            self._said_reloading = False
            self._said_ready = False

    def _tell_of_readiness(self) -> None:
        if self._server.has_served and not self._said_ready:
            self._said_ready = True
            self._say("READY=1")

    def _ask_for_time(self, now: float) -> None:
        if self._server.phase is not Phase.RUNNING and now >= self._extended_at + EXTEND_INTERVAL_S:
            self._extended_at = now
            self._say(f"EXTEND_TIMEOUT_USEC={EXTEND_BY_S * 1e6:.0f}")

    def _tell_status(self) -> None:
        status = self._describe()
        if status != self._status:
            self._status = status
            self._say(f"STATUS={status}")

    def _describe(self) -> str:
        living = list(self._workers)
        ready = sum(handle.state is WorkerState.READY for handle in living)
        if self._server.phase is not Phase.RUNNING:
            return f"Stopping, {len(living)} workers left"
        count = f"{ready} of {self._server.num_workers} workers ready"
        if not self._server.has_served:
            return f"Starting, {count}"
        if is_under_way(self._reload):
            return f"Reloading, {count}"
        if self._reload is not None and self._reload.result is Result.FAILED:
            return f"Serving as before, {count}; the last reload failed: {self._reload.message}"
        return f"Serving, {count}"

    def _is_healthy(self, now: float) -> bool:
        """Whether somebody serves, or nobody is meant to."""
        if self._server.phase is not Phase.RUNNING or self._server.num_workers == 0:
            return True
        timeout = self._server.timeout
        return any(
            handle.state is WorkerState.READY and (not timeout or now - handle.slot.heartbeat_ns / 1e9 < timeout)
            for handle in self._workers
        )

    def _say(self, *assignments: str) -> None:
        # One assignment a line: what a message of an error holds must not become another.
        lines = [" ".join(assignment.split())[:STATUS_CHARACTERS_MAX] for assignment in assignments]
        self._unsent.append("\n".join(lines))
        self._send()

    def _send(self) -> None:
        """Send what waits, in order; a manager that is busy has a short queue, and hears it in a later round."""
        while self._unsent and systemd.notify(self._unsent[0]):
            self._unsent.popleft()
