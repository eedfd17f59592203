"""The arbiter's dealings with its workers: what they say, what they are told, and what is done when one has ended.

Owns       the signals that a decision of policy becomes, and the burial of a worker: its log line, its files, its hook.
Never      decides when a worker is told something (policy.py), or what its death means for the server (failures.py).
Invariant  a worker's record says what it was told before the signal is sent.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from bicorn.arbiter import exits
from bicorn.arbiter.oom import OomKills
from bicorn.arbiter.policy import Abort, Drain, Kill, Phase, Quit
from bicorn.arbiter.states import SERVING, WorkerEvent, WorkerState
from bicorn.arbiter.watch import serving
from bicorn.ipc.messages import Kind, Message
from bicorn.ipc.scoreboard import SlotState

if TYPE_CHECKING:
    from bicorn.arbiter.failures import Failures
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.arbiter.server import Server
    from bicorn.arbiter.stacks import StackCollector
    from bicorn.arbiter.watch import RequestWatch


class Workforce:
    """Hears, tells and buries the workers of one server."""

    def __init__(self, server: Server, stacks: StackCollector, watch: RequestWatch, failures: Failures) -> None:
        self._server = server
        self._stacks = stacks
        self._watch = watch
        self._failures = failures
        self._oom_kills = OomKills()

    # -- what they say -------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        """Take in what a worker says."""
        handle = self._server.children.find(message.pid)
        if handle is None:
            return  # Reaped already.
        if message.kind is Kind.READY:
            handle.advance(WorkerEvent.SAID_READY, time.monotonic())
            handle.turned_into = message.text
            generation = self._server.generations.find(handle.generation)
            if generation is not None:
                generation.tried = True
            self._server.log.debug("Worker ready (pid: %s)", handle.pid)
        elif message.kind is Kind.DUE:
            handle.due = message.text
        else:
            handle.failure = message.text

    # -- what they are told --------------------------------------------------------------------

    def tell(self, action: Drain | Quit | Abort | Kill) -> None:
        """Tell a worker what was decided."""
        handle = self._server.children.find(action.pid)
        assert handle is not None, "policy decides about workers of its snapshot"
        now = time.monotonic()
        if isinstance(action, Drain):
            handle.advance(WorkerEvent.TOLD_TO_DRAIN, now)
            handle.slot.state = SlotState.DRAINING  # Before the signal: nobody may hand it a connection from now on.
            handle.send(signal.SIGTERM)
        elif isinstance(action, Quit):
            handle.advance(WorkerEvent.TOLD_TO_QUIT, now)
            handle.send(signal.SIGQUIT)
        elif isinstance(action, Abort):
            self._announce_abort(handle)
            self._watch.report_stuck(handle, action.silent_s, now, lambda: self._send_abort(handle))
            handle.worker.aborted = True
            handle.advance(WorkerEvent.HEARTBEAT_MISSED, now)
        else:
            handle.advance(WorkerEvent.KILL_SENT, now)
            handle.send(signal.SIGKILL)

    @staticmethod
    def _send_abort(handle: WorkerHandle) -> None:
        """Have the worker run its hook and die, now that its stacks are read.

        Not earlier: while another signal waits for the main thread, the kernel gives this one to any other thread, and
        nothing interrupts what the main thread is stuck in.
        """
        if handle.state is WorkerState.ABORTED:
            handle.send(signal.SIGABRT)

    def _announce_abort(self, handle: WorkerHandle) -> None:
        boot_timeout = self._server.cfg.boot_timeout
        if handle.state is WorkerState.BOOTING and boot_timeout:
            late = f"not ready within {boot_timeout:g} s (boot_timeout)"
            self._server.log.critical("WORKER TIMEOUT (pid:%s): %s", handle.pid, late)
            handle.failure = f"worker {handle.pid} was {late}"
        else:
            self._server.log.critical("WORKER TIMEOUT (pid:%s)", handle.pid)

    # -- when one has ended --------------------------------------------------------------------

    def bury(self, pid: int, ended: exits.Exit) -> bool:
        """Do what has to be done about an exit, if it was a worker's."""
        handle = self._server.children.remove(pid)
        if handle is None:
            return False
        state = handle.state
        handle.advance(WorkerEvent.EXITED, time.monotonic())
        self._log_exit(handle, state, ended)
        handle.close()
        if state in SERVING or handle.worker.aborted:
            self._failures.worker_died(handle, ended)
        self._server.run_hook("child_exit", handle.worker)
        return True

    def explain_template(self, pid: int, ended: exits.Exit) -> str:
        """Give in words how a template ended that nobody had told to."""
        line = exits.describe(
            ended, pid, WorkerState.READY, stopping=False, oom=self._oom_kills.explain_one, who="Template"
        )
        return line[1] if line is not None else f"Template (pid:{pid}) exited with code 0."

    def _log_exit(self, handle: WorkerHandle, state: WorkerState, ended: exits.Exit) -> None:
        stopping = self._server.phase is not Phase.RUNNING
        line = exits.describe(ended, handle.pid, state, stopping=stopping, oom=self._oom_kills.explain_one)
        stacks = self._stacks.bury(handle)
        if line is not None:
            level, text = line
            # What it did when it was aborted has been said. Others died of what they did, or outlived graceful_timeout.
            if not handle.worker.aborted and (request := serving(handle, time.monotonic())):
                text = f"{text} It was serving: {request}"
            self._server.log.log(level, f"{text}\n{stacks}".rstrip() if ended.signum in exits.FAULTS else text)
