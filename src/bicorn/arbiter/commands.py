"""The commands of the control interface: what each asks of the arbiter, and when it is answered.

Owns       the table of commands, their arguments, and the answers that have to wait for something.
Never      does anything to a worker that a signal to the arbiter could not do as well.
Invariant  every request is answered, unless its client left or the arbiter ends first.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from bicorn.arbiter import status
from bicorn.arbiter.outcome import Result
from bicorn.arbiter.policy import Phase
from bicorn.arbiter.upgrade import UpgradeRefused
from bicorn.observe.control_protocol import Refused, Request

if TYPE_CHECKING:
    from bicorn.arbiter.arbiter import Arbiter
    from bicorn.arbiter.children import Children
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.arbiter.outcome import Outcome
    from bicorn.arbiter.stacks import StackCollector
    from bicorn.observe.control_socket import Reply


@dataclasses.dataclass
class _Waiting:
    """An answer that waits for the end of a reload or an upgrade."""

    reply: Reply
    what: str
    outcome: Callable[[], Outcome | None]


class Commands:
    """Carries out requests, with what the arbiter offers."""

    def __init__(self, arbiter: Arbiter, workers: Children, collector: StackCollector) -> None:
        self._arbiter = arbiter
        self._workers = workers
        self._collector = collector
        self._waiting: list[_Waiting] = []
        self._table: Final[Mapping[str, Callable[[Request, Reply], None]]] = {
            "status": self._status,
            "reload": self._reload,
            "upgrade": self._upgrade,
            "stop": self._stop,
            "scale": self._scale,
            "stacks": self._stacks,
        }

    def handle(self, request: Request, reply: Reply) -> None:
        """Carry out a request, or raise Refused."""
        command = self._table.get(request.command)
        if command is None:
            raise Refused("unknown-command", f"there is no command {request.command!r}: {', '.join(self._table)}")
        command(request, reply)

    def answer_waiting(self) -> None:
        """Answer whoever waits for something that has ended."""
        self._waiting = [waiting for waiting in self._waiting if waiting.reply.is_wanted]
        for waiting in self._waiting:
            self._answer(waiting)  # Whoever was answered is not wanted any more, and goes with the next round.

    @staticmethod
    def _answer(waiting: _Waiting) -> None:
        outcome = waiting.outcome()
        if outcome is None or outcome.result is Result.UNDER_WAY:
            return
        if outcome.result is Result.DONE:
            waiting.reply.result(status.describe_outcome(outcome) or {})
        else:
            waiting.reply.refuse(Refused(f"{waiting.what}-failed", outcome.message))

    def forget_waiting(self) -> None:
        """In a child: the clients are the arbiter's."""
        self._waiting.clear()

    # -- the commands --------------------------------------------------------------------------

    def _status(self, request: Request, reply: Reply) -> None:
        request.refuse_unknown()
        reply.result(status.report(self._arbiter, self._workers, time.monotonic()))

    def _reload(self, request: Request, reply: Reply) -> None:
        request.refuse_unknown()
        self._refuse_while_stopping("reload")
        self._arbiter.log.info("Reload asked for through the control socket")
        self._arbiter.reload()
        self._waiting.append(_Waiting(reply, "reload", lambda: self._arbiter.last_reload))

    def _upgrade(self, request: Request, reply: Reply) -> None:
        request.refuse_unknown()
        self._refuse_while_stopping("upgrade")
        self._arbiter.log.info("Upgrade asked for through the control socket")
        try:
            self._arbiter.upgrade()
        except UpgradeRefused as refused:
            raise Refused("upgrade-failed", str(refused)) from None
        self._waiting.append(_Waiting(reply, "upgrade", lambda: self._arbiter.last_upgrade))

    def _stop(self, request: Request, reply: Reply) -> None:
        request.refuse_unknown("quick")
        is_quick = request.flag("quick")
        self._arbiter.log.info("Stop asked for through the control socket")
        # The connection ends with the arbiter, which is how the client learns that it has gone.
        reply.result({"pid": self._arbiter.pid, "graceful_timeout_s": self._arbiter.cfg.graceful_timeout})
        if is_quick:
            self._arbiter.handle_int()
        else:
            self._arbiter.handle_term()

    def _scale(self, request: Request, reply: Reply) -> None:
        request.refuse_unknown("workers")
        wanted = request.number("workers", 1, self._arbiter.workers_max)
        self._refuse_while_stopping("scale")
        before = self._arbiter.num_workers
        self._arbiter.log.info("%s workers asked for through the control socket, %s before", wanted, before)
        if wanted != before:
            self._arbiter.num_workers = wanted
        reply.result({"workers_wanted": wanted, "workers_wanted_before": before})

    def _stacks(self, request: Request, reply: Reply) -> None:
        request.refuse_unknown("pids")
        pids = request.numbers("pids")
        chosen = [self._find(pid) for pid in pids] if pids else list(self._workers)
        answers: list[dict[str, Any]] = []

        def collect(handle: WorkerHandle, text: str) -> None:
            answers.append({**status.describe_worker(handle, time.monotonic()), "stacks": text})
            if len(answers) == len(chosen) and reply.is_wanted:
                reply.result({"workers": sorted(answers, key=lambda answer: int(answer["age"]))})

        if not chosen:
            reply.result({"workers": []})
        for handle in chosen:
            self._collector.ask(handle, time.monotonic(), functools.partial(collect, handle))

    def _find(self, pid: int) -> WorkerHandle:
        handle = self._workers.find(pid)
        if handle is None:
            living = ", ".join(str(handle.pid) for handle in self._workers) or "none"
            raise Refused("no-such-worker", f"{pid} is not a worker of this server; its workers are: {living}")
        return handle

    def _refuse_while_stopping(self, what: str) -> None:
        if self._arbiter.phase is not Phase.RUNNING:
            raise Refused("stopping", f"{what}: the server is being stopped")
