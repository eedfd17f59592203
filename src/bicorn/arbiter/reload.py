"""SIGHUP: trying a new configuration without touching what serves.

Owns       the generation in force, the one to go back to, how the last reload went, and the steps from "read everything
           again" to a generation that can be forked from.
Never      stops a worker or closes a listener that serves.
Invariant  after ReloadFailed, and after abandon(), the process, the log and the listeners are as they were before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bicorn.arbiter.generation import Generation
from bicorn.arbiter.outcome import Outcome, Result, headline
from bicorn.arbiter.scale import first_target
from bicorn.errors import BicornError
from bicorn.net.listener import Listener, close_listeners, create_listeners, refuse_new_connections
from bicorn.workers.registry import load_worker_class

if TYPE_CHECKING:
    from bicorn.arbiter.environment import ProcessEnvironment
    from bicorn.arbiter.templates import Template
    from bicorn.config import Settings
    from bicorn.observe.log import Logger


class ReloadFailed(Exception):
    """The new configuration does not work; the text is for the log and holds the user's traceback if there is one."""


class Generations:
    """The generation that new workers belong to, and, during a reload, the one that serves until they are ready."""

    def __init__(self, first: Generation, environment: ProcessEnvironment, log: Logger) -> None:
        self.current = first
        self.fallback: Generation | None = None
        self.last: Outcome | None = None
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

    def begin(self, load: Callable[[], Settings], *, keep_listeners: bool) -> Generation:
        """Make the generation of the configuration as it is now, beside the one that serves; give the latter.

        Raises ReloadFailed, with nothing changed but the record.
        """
        serving = self.fallback or self.current
        if self.fallback is not None:
            # Not proven yet, and outdated already. Its workers are drained in the next round.
            _forget(self.current, keep=self.fallback)
        self._number += 1
        try:
            fresh = prepare_generation(
                serving, load, self._environment, self._log, number=self._number, keep_listeners=keep_listeners
            )
        except ReloadFailed as failure:
            self.current, self.fallback = serving, None
            self.last = Outcome(Result.FAILED, headline(str(failure)))
            raise
        self.current, self.fallback = fresh, serving
        self.last = Outcome(Result.UNDER_WAY, "the new workers are starting")
        return serving

    def refork(self, template: Template) -> None:
        """Begin to replace the workers of the generation in force by forks of one of them."""
        assert self.fallback is None, "a reload comes first"
        self._number += 1
        template.generation = self._number
        self.fallback = self.current
        self.current = dataclasses.replace(
            self.fallback, number=self._number, template=template, is_warm=True, tried=False, proven=False
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
        self._environment.enter(self.current.app)
        self._log.setup(self.current.settings)
        self.last = Outcome(Result.FAILED, reason)
        return failed

    def close_listeners(self, *, shared: bool) -> None:
        """Close this process's copies of all listeners; `shared`: somebody else goes on accepting from them."""
        for generation in self:
            if not shared:
                refuse_new_connections(generation.listeners)
            close_listeners(generation.listeners, unlink=not shared)
            generation.listeners = []


def _forget(generation: Generation, *, keep: Generation) -> None:
    # Workers that still drain have copies: what waits in the queue of an address that goes is served by them.
    gone = [listener for listener in generation.listeners if listener not in keep.listeners]
    refuse_new_connections(gone)
    close_listeners(gone, unlink=True)
    if generation.template is not None and generation.template is not keep.template:
        generation.template.end()


def prepare_generation(
    current: Generation,
    load: Callable[[], Settings],
    environment: ProcessEnvironment,
    log: Logger,
    *,
    number: int,
    keep_listeners: bool,
) -> Generation:
    """Load the configuration and everything that can fail before a fork; raise ReloadFailed if something does."""
    with contextlib.ExitStack() as undo:
        undo.callback(environment.enter, current.app)
        with _failures():
            environment.leave()
            settings = load()
            app = current.app.renew(settings)
            environment.enter(app)
            worker_class = load_worker_class(settings)
            log.setup(settings)  # Restores the previous configuration by itself when it fails.
            undo.callback(log.setup, current.settings)
            listeners = _listeners(settings, current, log, keep=keep_listeners)
            undo.callback(close_listeners, [new for new in listeners if new not in current.listeners], unlink=True)
        undo.pop_all()
    return Generation(number, settings, app, worker_class, listeners, first_target(settings, current.target))


def _listeners(settings: Settings, current: Generation, log: Logger, *, keep: bool) -> list[Listener]:
    if keep or settings.address == current.settings.address:
        return current.listeners
    # An address in use is not waited for: signals come first, and the reload can be asked for again.
    listeners = create_listeners(settings, log, existing=current.listeners, pause=lambda _seconds: True)
    log.info("Listening at: %s", ",".join(map(str, listeners)))
    return listeners


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except BicornError as error:
        raise ReloadFailed(str(error)) from error
    except SystemExit as error:
        raise ReloadFailed(f"the configuration ended with SystemExit({error.code!r})") from error
    except Exception as error:
        raise ReloadFailed(traceback.format_exc()) from error
