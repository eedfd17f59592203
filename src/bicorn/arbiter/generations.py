"""The generation in force, and during a reload the one that serves until it is proven.

Owns       the two of them, how the last reload went, and the patience with workers that die at once.
Never      reads a configuration, and never stops a worker: those of a generation that is gone are drained by policy.
Invariant  after abandon() the process, the log and the listeners are as they were before begin().
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bicorn.arbiter.outcome import Outcome, Result
from bicorn.arbiter.policy import Backoff
from bicorn.net.listener import close_listeners, refuse_new_connections

if TYPE_CHECKING:
    from bicorn.arbiter.environment import ProcessEnvironment
    from bicorn.arbiter.generation import Generation
    from bicorn.arbiter.templates import Template
    from bicorn.observe.log import Logger


class Generations:
    """The generation that new workers belong to, and the one to go back to if there is one."""

    def __init__(self, first: Generation, environment: ProcessEnvironment, log: Logger) -> None:
        self.current = first
        self.fallback: Generation | None = None
        self.last: Outcome | None = None
        self.backoff = Backoff()
        self._environment = environment
        self._log = log
        self._number = first.number

    def __iter__(self) -> Iterator[Generation]:
        yield self.current
        if self.fallback is not None:
            yield self.fallback

    def find(self, number: int) -> Generation | None:
        """Give the generation of that number, unless it is gone."""
        return next((generation for generation in self if generation.number == number), None)

    @property
    def settled(self) -> Generation | None:
        """The generation in force, if it is proven and nothing replaces it."""
        return self.current if self.fallback is None and self.current.proven else None

    def is_on_trial(self, generation: Generation) -> bool:
        """Whether a worker of it that cannot live ends a reload, and all workers of before are there to go back to."""
        is_next = generation is self.current and self.fallback is not None
        return is_next and not (generation.is_rolling and generation.tried)

    def take_number(self) -> int:
        """Give the number of the next generation; one that cannot be made uses up its number as well."""
        self._number += 1
        return self._number

    def begin(self, fresh: Generation) -> None:
        """Begin to replace the generation in force."""
        assert self.fallback is None, "one reload at a time"
        self.current, self.fallback = fresh, self.current
        self.backoff = Backoff()
        self.last = Outcome(Result.UNDER_WAY, "the new workers are starting")

    def refork(self, template: Template) -> None:
        """Begin to replace the workers of the generation in force by forks of one of them."""
        assert self.fallback is None, "a reload comes first"
        template.generation = self.take_number()
        self.fallback = self.current
        self.current = dataclasses.replace(
            self.fallback, number=template.generation, template=template, is_warm=True, tried=False, proven=False
        )

    def commit(self) -> bool:
        """Take the current generation as proven; tell whether that was the end of a reload."""
        self.current.proven = True
        if self.fallback is None:
            return False
        _forget(self.fallback, keep=self.current)
        self.fallback = None
        if not self.current.is_warm:
            self.last = Outcome(Result.DONE, f"{self.current.target} new workers serve")
        return True

    def abandon(self, reason: str) -> Generation:
        """Go back to the generation that serves; give the failed one, whose workers are drained in the next round."""
        assert self.fallback is not None, "there is a generation to go back to"
        failed, self.current, self.fallback = self.current, self.fallback, None
        _forget(failed, keep=self.current)
        enter_again(self.current, self._environment, self._log)
        log_again(self.current, self._log)
        self.backoff = Backoff()
        self.last = Outcome(Result.FAILED, reason)
        return failed

    def close_listeners(self, *, shared: bool) -> None:
        """Close this process's copies of all listeners; `shared`: somebody else goes on accepting from them."""
        for generation in self:
            if not shared:
                refuse_new_connections(generation.listeners)
            close_listeners(generation.listeners, unlink=not shared)
            generation.listeners = []


def enter_again(serving: Generation, environment: ProcessEnvironment, log: Logger) -> None:
    """Have the process as the generation has it that serves, if its directory still exists."""
    attempt(log, "Cannot go back to the working directory of before", environment.enter, serving.app)


def log_again(serving: Generation, log: Logger) -> None:
    """Have the log as the generation has it that serves, if its files can still be opened."""
    attempt(log, "Cannot go back to the log of before", log.setup, serving.settings)


def attempt(log: Logger, failure: str, step: Callable[..., object], *args: object) -> None:
    """Take a step of the way back, on which nothing may end the server: what it raises is logged."""
    try:
        step(*args)
    except Exception as error:  # noqa: BLE001 - whatever it is, there is nothing else to go back to
        log.error("%s: %s", failure, error)


def _forget(generation: Generation, *, keep: Generation) -> None:
    # Workers that still drain have copies: what waits in the queue of an address that goes is served by them.
    gone = [listener for listener in generation.listeners if listener not in keep.listeners]
    refuse_new_connections(gone)
    close_listeners(gone, unlink=True)
    if generation.template is not None and generation.template is not keep.template:
        generation.template.end()
