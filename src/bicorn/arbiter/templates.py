"""The templates that workers are forked from, as the arbiter sees them.

Owns       the records of living templates, and workers that a template was told to fork and has not named yet.
Never      decides whether to fork, or what a template's death means: policy.py and failures.py do.
Invariant  a worker whose template has ended without naming it is given up.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from bicorn.arbiter.policy import TemplateState, TemplateView
from bicorn.arbiter.spawn import fork_template, live
from bicorn.arbiter.states import WorkerEvent
from bicorn.arbiter.subreaper import become_subreaper
from bicorn.arbiter.template import TemplateProcess, make_channel, order_fork, order_to_become_template
from bicorn.ipc.messages import Kind, Message

if TYPE_CHECKING:
    from bicorn.arbiter.exits import Exit
    from bicorn.arbiter.failures import Failures
    from bicorn.arbiter.generation import Generation
    from bicorn.arbiter.spawner import Spawner
    from bicorn.arbiter.stacks import StackCollector
    from bicorn.arbiter.workforce import Workforce

#: Exits of unknown processes that are remembered at a time; a container's process 1 gets many that are nobody's.
STRAYS_MAX: Final = 64


@dataclasses.dataclass
class Template:
    """A template as the arbiter sees it."""

    pid: int
    generation: int
    channel: socket.socket
    since: float
    state: TemplateState = TemplateState.BOOTING
    failure: str = ""

    def order_fork(self, age: int, slot: int, predecessor: int, descriptors: Sequence[int]) -> None:
        """Have a worker forked; it says FORKED, or FORK_FAILED. OSError if the template does not listen."""
        order_fork(self.channel, age, slot, predecessor, descriptors)

    def end(self) -> None:
        """Tell it to go; its workers stay."""
        if self.state is not TemplateState.ENDING:
            self.state = TemplateState.ENDING
            self.channel.close()
            os.kill(self.pid, signal.SIGTERM)


class Templates:
    """Registry of the living templates, by pid."""

    def __init__(self, spawner: Spawner, workforce: Workforce, failures: Failures, stacks: StackCollector) -> None:
        self._server = spawner.server
        self._generations = spawner.server.generations
        self._children = spawner.server.children
        self._spawner = spawner
        self._workforce = workforce
        self._failures = failures
        self._stacks = stacks
        self._by_pid: dict[int, Template] = {}
        self._strays: dict[int, Exit] = {}  # exits of processes that a template has yet to name

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Template]:
        return iter(list(self._by_pid.values()))

    def views(self) -> tuple[TemplateView, ...]:
        """Give the templates of the generations that need one, as values."""
        return tuple(_view(generation) for generation in self._generations if generation.needs_template)

    def start(self, generation: Generation) -> None:
        """Fork the process that loads the application of a generation."""
        ours, theirs = make_channel()

        def leave() -> None:
            self._spawner.leave_arbiter()
            ours.close()

        def live_on() -> NoReturn:
            live(self._spawner, TemplateProcess.load(self._spawner, generation, theirs).serve())

        try:
            become_subreaper()
            pid = fork_template(leave, live_on)
        except OSError as error:
            ours.close()
            self._failures.spawn_failed(generation, error)
            return
        finally:
            theirs.close()
        generation.template = self._by_pid[pid] = Template(pid, generation.number, ours, time.monotonic())

    def abort(self, number: int) -> None:
        """End the template of a generation, which takes too long to load the application or to go."""
        generation = self._generations.find(number)
        template = generation.template if generation is not None else None
        if generation is None or template is None:
            return
        if template.state is TemplateState.BOOTING:
            limit = generation.settings.boot_timeout
            template.failure = f"the application was not loaded within {limit:g} s (boot_timeout)"
            self._server.log.critical("TEMPLATE TIMEOUT (pid:%s): %s", template.pid, template.failure)
            os.kill(template.pid, signal.SIGABRT)
        else:
            os.kill(template.pid, signal.SIGKILL)
        template.state, template.since = TemplateState.ENDING, time.monotonic()

    def read(self, message: Message) -> bool:
        """Take in what a template says; False for the messages of workers."""
        template = self._by_pid.get(message.pid)
        if message.kind is Kind.FORKED:
            self._take_over(int(message.text), message.pid)
        elif message.kind is Kind.FORK_FAILED:
            age, _, why = message.text.partition(" ")
            generation = self._give_up_unborn(int(age))
            if generation is not None:
                self._failures.spawn_failed(generation, OSError(why))
        elif message.kind is Kind.TEMPLATE_READY and template is None:
            self._inherit(message.pid)
        elif template is None:
            return False
        elif message.kind is Kind.BOOT_FAILED:
            template.failure = message.text
        elif template.state is TemplateState.BOOTING:
            template.state, template.since = TemplateState.READY, time.monotonic()
            self._server.log.debug("Template ready (pid: %s)", template.pid)
        return True

    def _take_over(self, age: int, pid: int) -> None:
        """A template has forked the worker of this age."""
        handle = self._children.born(age, pid)
        if handle is None:
            os.kill(pid, signal.SIGTERM)  # It was given up meanwhile.
            return
        for signum in handle.owed:
            handle.send(signum)
        ended = self._strays.pop(pid, None)
        if ended is not None:
            self._workforce.bury(pid, ended)

    def _give_up_unborn(self, age: int) -> Generation | None:
        """Forget a worker that was not forked; give its generation if that is still of interest."""
        handle = self._children.remove(-age)
        if handle is None:
            return None
        self._stacks.bury(handle)
        handle.close()
        return self._generations.find(handle.generation)

    def bury(self, pid: int, ended: Exit) -> bool:
        """Take note of an exit, if it was a template's."""
        template = self._by_pid.pop(pid, None)
        if template is None:
            return False
        template.channel.close()
        for handle in self._children:
            if not handle.is_born and handle.generation == template.generation:
                self._give_up_unborn(handle.worker.age)
        generation = self._generations.find(template.generation)
        if generation is not None and generation.template is template:
            generation.template = None
            how = "" if template.failure else self._workforce.explain_template(pid, ended)
            self._failures.template_died(generation, template, how)
        return True

    def keep_stray(self, pid: int, ended: Exit) -> None:
        """Remember the exit of a stranger while it may turn out to be a worker that a template was told to fork."""
        if all(handle.is_born for handle in self._children):
            self._strays.clear()
        elif len(self._strays) < STRAYS_MAX:
            self._strays[pid] = ended

    def leave_in_child(self) -> None:
        """Close in a forked child what leads to templates."""
        for template in self:
            template.channel.close()

    # -- refork --------------------------------------------------------------------------------

    def tell_heir(self, pid: int) -> None:
        """Ask a worker that is about to drain to become a template, if it was chosen and nothing has come between."""
        handle, generation = self._children.find(pid), self._server.settled_generation()
        if handle is not None and handle.is_heir and handle.channel is not None and generation is not None:
            become_subreaper()
            order_to_become_template(handle.channel, generation.listeners)

    def _inherit(self, pid: int) -> None:
        """A worker has drained and is a template now: replace its siblings by forks of it."""
        handle = self._children.remove(pid)
        assert handle is not None, "it is a worker, or we would not have its message"
        assert handle.channel is not None, "it was asked through that"
        handle.advance(WorkerEvent.EXITED, time.monotonic())
        self._stacks.bury(handle)
        handle.stacks.close()
        self._server.run_hook("child_exit", handle.worker)
        template = Template(pid, handle.generation, handle.channel, time.monotonic(), TemplateState.READY)
        self._by_pid[pid] = template
        generation = self._server.settled_generation()
        if generation is None or generation.number != handle.generation:
            template.end()  # A reload came between: what it holds is outdated.
            return
        generation.was_reforked = True
        self._generations.refork(template)
        self._server.log.info("New workers are forked from the template (pid: %s)", pid)


def _view(generation: Generation) -> TemplateView:
    template = generation.template
    if template is None:
        return TemplateView(generation.number, TemplateState.MISSING)
    return TemplateView(generation.number, template.state, template.since)
