"""Collecting the stacks of workers, for the control interface, for timeouts and for slow requests.

Owns       the questions under way, and how long each may take.
Never      waits: an answer is looked for in each round of the loop, a few milliseconds apart while one is expected.
Invariant  whoever asked is told exactly once: with the stacks, or with the reason why there are none.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bicorn.ipc.stacks import ASK_SIGNAL, FAULT_SIGNAL, held_back_by, is_caught, is_handled, kernel_state

if TYPE_CHECKING:
    from bicorn.arbiter.handle import WorkerHandle

#: How long a worker's interpreter may take before the stacks are taken without it.
PATIENCE_S: Final = 0.25
#: How long the kernel may take to run the handler in C: it waits only for a process that is stopped or in a system call
#: that nothing interrupts. A part of the patience with an aborted worker (policy.ABORT_GRACE_S), which begins with it.
GIVEN_UP_AFTER_S: Final = 0.5
#: Between two looks for an answer that is expected at any moment.
LOOK_INTERVAL_S: Final = 0.005

Told = Callable[[str], None]


@dataclasses.dataclass
class _Question:
    handle: WorkerHandle
    asked_at: float
    tell: list[Told]
    signum: int = ASK_SIGNAL
    never_by: frozenset[int] = frozenset()  # threads that take no such signal


class StackCollector:
    """Asks workers for their stacks and hands the answers to whoever wanted them."""

    def __init__(self) -> None:
        self._questions: dict[int, _Question] = {}
        self._looked_at = 0.0

    def ask(self, handle: WorkerHandle, now: float, tell: Told) -> None:
        """Have `tell` called with the stacks of a living worker, in a later round."""
        question = self._questions.get(handle.pid)
        if not handle.is_born:
            tell("(the worker is not forked yet)")
        elif question is not None:
            question.tell.append(tell)
        else:
            self._begin(_Question(handle, now, [tell]), ASK_SIGNAL)

    def seize(self, handle: WorkerHandle, now: float, tell: Told) -> None:
        """Do the same for a worker that is about to be ended: without its interpreter, and at once."""
        before = self._questions.get(handle.pid)
        told = before.tell if before is not None else []
        self._begin(_Question(handle, now - PATIENCE_S, [*told, tell]), FAULT_SIGNAL)

    def bury(self, handle: WorkerHandle) -> str:
        """Give what a worker that is gone has written last, also to those who asked for it."""
        text = handle.stacks.read()
        question = self._questions.pop(handle.pid, None)
        if question is not None:
            self._answer(question, text or "(the worker has ended)")
        return text

    # -- as a duty of the loop -----------------------------------------------------------------

    def fileno(self) -> int:
        return -1  # Files in memory announce nothing.

    def wake_at(self) -> float | None:
        return self._looked_at + LOOK_INTERVAL_S if self._questions else None

    def attend(self, now: float) -> None:
        self._looked_at = now
        for question in list(self._questions.values()):
            text = self._look(question, now)
            if text is not None:
                del self._questions[question.handle.pid]
                self._answer(question, text)

    def leave_in_child(self) -> None:
        self._questions.clear()

    # -- one question --------------------------------------------------------------------------

    def _begin(self, question: _Question, signum: int) -> None:
        self._questions[question.handle.pid] = question
        question.handle.stacks.clear()
        self._send(question, signum)

    def _look(self, question: _Question, now: float) -> str | None:
        """Give the stacks if they are there, the reason if they will not come, or None."""
        stacks, pid = question.handle.stacks, question.handle.pid
        if stacks.is_whole():
            return stacks.read()
        if question.signum == ASK_SIGNAL:
            if now - question.asked_at >= PATIENCE_S:
                stacks.clear()
                self._send(question, FAULT_SIGNAL)
            return None
        # In this order: what is read before the handler has ended may be a part.
        is_done = is_handled(pid, FAULT_SIGNAL, question.never_by)
        text = stacks.read()
        if text and is_done:
            return text
        if now - question.asked_at >= PATIENCE_S + GIVEN_UP_AFTER_S:
            return text or f"(no answer; the kernel says that the process is: {kernel_state(pid)})"
        return None

    @staticmethod
    def _send(question: _Question, signum: int) -> None:
        question.signum = signum
        question.never_by = held_back_by(question.handle.pid, signum)
        # Something in the worker may have put back the default action, of which it would die.
        if is_caught(question.handle.pid, signum):
            os.kill(question.handle.pid, signum)

    @staticmethod
    def _answer(question: _Question, text: str) -> None:
        for tell in question.tell:
            tell(text)
