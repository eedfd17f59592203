"""Workers and templates that cannot be started, cannot boot, or die unasked: what that means for the server.

Owns       the choice of the answer: the end of a reload, the end of the server, or a pause before the next try.
Never      forks or reaps.
Invariant  once the server has served, no failure of a worker ends it; while it stops, none means anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from bicorn.arbiter import policy
from bicorn.arbiter.policy import Phase, TemplateState
from bicorn.errors import ExitCode

if TYPE_CHECKING:
    from bicorn.arbiter.exits import Exit
    from bicorn.arbiter.generation import Generation
    from bicorn.arbiter.handle import WorkerHandle
    from bicorn.arbiter.reload import Reload
    from bicorn.arbiter.server import Server
    from bicorn.arbiter.templates import Template
    from bicorn.config import Settings

_BOOT_FAILURES: Final[Mapping[int | None, str]] = {
    ExitCode.WORKER_BOOT_ERROR: "Worker failed to boot.",
    ExitCode.APP_LOAD_ERROR: "App failed to load.",
}

EXIT_INTERNAL_ERROR: Final = 255  # Gunicorn's sys.exit(-1)


class WorkerNotMade(Exception):
    """The constructor of a worker class raised, which is its cause; says which class, and where it was named."""

    def __init__(self, settings: Settings, cause: Exception) -> None:
        where = f"worker_class = {settings.worker_class_str!r} ({settings.source_of('worker_class')})"
        super().__init__(f"{where}: making a worker raised {type(cause).__name__}: {cause}")
        # What called the class is ours, and tells its author nothing.
        self.__cause__ = cause.with_traceback(cause.__traceback__ and cause.__traceback__.tb_next)


class Failures:
    """Answers failures."""

    def __init__(self, server: Server, reload: Reload, halt: Callable[[str, int], None]) -> None:
        """`halt` ends the server for a reason and with an exit code."""
        self._server = server
        self._reload = reload
        self._halt = halt

    def worker_died(self, handle: WorkerHandle, ended: Exit) -> None:
        """A worker has ended that nobody had told to, or that had to be aborted."""
        generation = self._server.generations.find(handle.generation)
        if generation is None or self._is_stopping:
            return
        never_ready = handle.ready_at is None
        if never_ready and self._server.generations.is_on_trial(generation):
            self._reload.abandon(handle.failure or f"worker {handle.pid} {ended}")
        elif never_ready and self._is_first_boot_final and ended.code in _BOOT_FAILURES:
            self._halt(_BOOT_FAILURES[ended.code], ended.code or ExitCode.FAILED)
        elif never_ready or not ended.is_clean:
            self._back_off(handle.ready_at)

    def template_died(self, generation: Generation, template: Template, how: str) -> None:
        """No more workers can be forked from the template of a generation; `how` it ended, if it could load it."""
        if self._is_stopping:
            return
        reason = template.failure or how
        if self._server.generations.is_on_trial(generation):
            self._reload.abandon(reason)
        elif template.failure and self._is_first_boot_final:
            self._halt(_BOOT_FAILURES[ExitCode.APP_LOAD_ERROR], ExitCode.FAILED)
        else:
            if template.failure:
                self._server.log.error("New workers cannot be forked: %s", reason)
            else:
                self._server.log.error("%s The next worker that is needed has the application loaded anew.", how)
            self._back_off(template.since if template.state is TemplateState.READY else None)

    def spawn_failed(self, generation: Generation, error: Exception) -> None:
        """A fork was refused (EAGAIN, ENOMEM), or the worker class or pre_fork raised.

        Before the server ever served, the latter two end it.
        """
        if self._is_stopping:
            return
        if isinstance(error, WorkerNotMade):
            self._server.log.error("%s", error, exc_info=error.__cause__)
            if self._is_first_boot_final:
                self._halt("No worker could be made.", EXIT_INTERNAL_ERROR)
                return
        elif not self._server.has_served and not isinstance(error, OSError):
            raise error
        else:
            self._server.log.error("A worker could not be started: %s", error, exc_info=error)
        if self._server.generations.is_on_trial(generation):
            self._reload.abandon(f"a worker could not be started: {error}")
        else:
            self._back_off(None)

    @property
    def _is_stopping(self) -> bool:
        return self._server.phase is not Phase.RUNNING

    @property
    def _is_first_boot_final(self) -> bool:
        return not self._server.has_served and self._server.cfg.on_boot_failure == "exit"

    def _back_off(self, ready_at: float | None) -> None:
        """Wait longer with each worker in a row that died at once; one that was ready for a while ends the row."""
        now, generations = time.monotonic(), self._server.generations
        generations.backoff = backoff = policy.backoff_after_death(
            generations.backoff,
            now,
            ready_for=None if ready_at is None else now - ready_at,
            delay_max=self._server.cfg.respawn_delay_max,
        )
        if backoff.not_before > now:
            self._server.log.warning(
                "%d workers in a row died at once; the next is started in %.1f s",
                backoff.deaths,
                backoff.not_before - now,
            )
