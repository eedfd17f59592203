"""SIGHUP: trying a new configuration without touching what serves.

Owns       the steps from "read everything again" to a generation that can be forked from, and the way back.
Never      stops a worker or closes a listener that serves.
Invariant  whatever fails on the way, the process, the log and the listeners are then as they were before.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bicorn.arbiter.generation import Generation
from bicorn.arbiter.generations import attempt, enter_again, log_again
from bicorn.arbiter.outcome import Outcome, Result, headline
from bicorn.arbiter.scale import first_target
from bicorn.errors import BicornError
from bicorn.net.listener import Listener, close_listeners, create_listeners
from bicorn.workers.registry import load_worker_class

if TYPE_CHECKING:
    from bicorn.arbiter.server import Server
    from bicorn.config import Settings


class ReloadFailed(Exception):
    """The new configuration does not work; the text is for the log and holds the user's traceback if there is one."""


class Reload:
    """Tries new configurations, one at a time."""

    def __init__(self, server: Server, load: Callable[[], Settings]) -> None:
        """`load` reads the whole configuration again."""
        self._server = server
        self._load = load

    def begin(self) -> None:
        """Try the configuration as it is now; its workers take over when they are ready."""
        server, generations = self._server, self._server.generations
        if generations.fallback is not None:
            # Not proven yet, and outdated already. Its workers are drained in the next round.
            generations.abandon("another reload came before it was ready")
        serving = generations.current
        try:
            generations.begin(self._prepare(serving))
        except ReloadFailed as failure:
            generations.last = Outcome(Result.FAILED, headline(str(failure)))
            server.log.error("Reload failed; the workers of before go on serving.\n%s", failure)
            return
        try:
            server.log.reopen_files()
            server.cfg.nworkers_changed(server, server.num_workers, serving.target)
            server.cfg.on_reload(server)
            server.claim_pidfile()
        except Exception as error:
            server.log.exception("Exception during the reload")
            self.abandon(str(error))
            return
        server.show_title()

    def abandon(self, reason: str) -> None:
        """Go back to the generation that serves; the workers of the failed one are drained in the next round."""
        server = self._server
        failed = server.generations.abandon(reason)
        attempt(server.log, "Cannot write the pid file of before", server.claim_pidfile)
        server.show_title()
        server.log.error("Reload failed; the workers of before go on serving. %s", reason)
        server.run_hook("nworkers_changed", server.num_workers, failed.target)

    def _prepare(self, serving: Generation) -> Generation:
        """Load the configuration and everything that can fail before a fork; raise ReloadFailed if something does."""
        environment, log = self._server.environment, self._server.log
        number = self._server.generations.take_number()
        with contextlib.ExitStack() as undo:
            undo.callback(enter_again, serving, environment, log)
            with _failures():
                environment.leave()
                settings = self._load()
                app = serving.app.renew(settings)
                environment.enter(app)
                worker_class = load_worker_class(settings)
                log.setup(settings)  # Restores the previous configuration by itself when it fails.
                undo.callback(log_again, serving, log)
                listeners = self._listen(settings, serving)
                undo.callback(close_listeners, [new for new in listeners if new not in serving.listeners], unlink=True)
            undo.pop_all()
        return Generation(number, settings, app, worker_class, listeners, first_target(settings, serving.target))

    def _listen(self, settings: Settings, serving: Generation) -> list[Listener]:
        if self._server.systemd or settings.address == serving.settings.address:
            return serving.listeners
        # An address in use is not waited for: signals come first, and the reload can be asked for again.
        listeners = create_listeners(
            settings, self._server.log, existing=serving.listeners, pause=lambda _seconds: True
        )
        self._server.log.info("Listening at: %s", ",".join(map(str, listeners)))
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
