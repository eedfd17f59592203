"""Making workers: from the decision that there should be one more to its record.

Owns       the object of a worker before it is forked, and who forks it: the arbiter, or a template on its order.
Never      decides whether to fork, or what it means that a fork failed.
Invariant  a slot that was taken ends up in a record, or is free again; no descriptor of a fork that failed stays open.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bicorn.arbiter.failures import WorkerNotMade
from bicorn.arbiter.handle import WorkerHandle
from bicorn.arbiter.recycle import draw_lifetime
from bicorn.arbiter.spawn import fork_worker
from bicorn.arbiter.template import TemplateProcess, make_channel
from bicorn.ipc.scoreboard import SlotState
from bicorn.ipc.stacks import StackFile

if TYPE_CHECKING:
    from bicorn._core import Slot
    from bicorn.arbiter.failures import Failures
    from bicorn.arbiter.generation import Generation
    from bicorn.arbiter.inheritance import Inheritance
    from bicorn.arbiter.server import Server
    from bicorn.workers.base import Worker


class Spawner:
    """Makes workers, in the arbiter, and in a template from the arbiter's copy of it."""

    def __init__(
        self, server: Server, inheritance: Inheritance, failures: Failures, leave_arbiter: Callable[[], None]
    ) -> None:
        """`leave_arbiter` gives up, in a forked child, what belongs to the arbiter alone."""
        self.server = server
        self.inheritance = inheritance
        self.leave_arbiter = leave_arbiter
        self._failures = failures
        self._made_from = server.generations.current

    def spawn(self, generation: Generation) -> None:
        """Fork one worker."""
        children = self.server.children
        self.server.worker_age += 1
        slot = children.take_slot()
        try:
            handle = self._fork(generation, slot)
        except Exception as error:  # noqa: BLE001 - pre_fork is the user's code
            children.free_slot(slot)
            self._failures.spawn_failed(generation, error)
            return
        children.add(handle)
        if not children.slots_free:
            self.server.log.warning(
                "All %s slots for workers are taken: no more are started until some have gone", len(children)
            )

    def _fork(self, generation: Generation, slot: Slot) -> WorkerHandle:
        """Fork a worker, or order it from the generation's template, which then says its pid."""
        age, forked_at, settings = self.server.worker_age, time.monotonic(), generation.settings
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as finally_:
            ours, theirs = make_channel() if settings.refork else (None, None)
            for end, stack in ((ours, undo), (theirs, finally_)):
                if end is not None:
                    stack.callback(end.close)
            stacks = StackFile()
            worker = self.make_worker(generation, age, slot.index, stacks, theirs)
            slot.state = SlotState.BOOTING
            if generation.template is None:
                settings.pre_fork(self.server, worker)
                worker.pid = slot.pid = pid = fork_worker(self, worker, ours)
            else:
                passed = [stacks.fileno(), *([theirs.fileno()] if theirs is not None else [])]
                generation.template.order_fork(age, slot.index, self.server.master_pid, passed)
                pid = -age
            undo.pop_all()
        handle = WorkerHandle(pid, worker, slot, generation.number, forked_at, since=forked_at, stacks=stacks)
        handle.lifetime_s, handle.channel = draw_lifetime(settings), ours
        return handle

    def make_worker(
        self, generation: Generation, age: int, slot: int, stacks: StackFile, channel: socket.socket | None
    ) -> Worker:
        """Make the object of a worker that is about to be forked, here or in a template."""
        server, settings = self.server, generation.settings
        try:
            worker = generation.worker_class(
                age, server.pid, generation.listeners, generation.app, settings.timeout / 2, settings, server.log
            )
        except Exception as error:
            raise WorkerNotMade(settings, error) from error
        worker.slot, worker.stacks, worker.channel = server.children.slot(slot), stacks, channel
        self.inheritance.give_to(worker)
        self._made_from = generation
        return worker

    def become_template(self, worker: Worker) -> TemplateProcess | None:
        """In a worker that has drained: go on as a template, if the arbiter has asked for it."""
        return TemplateProcess.promote(self, self._made_from, worker)
