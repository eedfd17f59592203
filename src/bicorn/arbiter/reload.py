"""SIGHUP: trying a new configuration without touching what serves.

Owns       the steps from "read everything again" to a generation that can be forked from.
Never      stops a worker or closes a listener that serves.
Invariant  ReloadFailed means that the process, the log and the listeners are as they were before.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from bicorn.arbiter.generation import Generation
from bicorn.errors import BicornError
from bicorn.net.listener import Listener, close_listeners, create_listeners
from bicorn.workers.registry import load_worker_class

if TYPE_CHECKING:
    from bicorn.app.application import Application
    from bicorn.arbiter.environment import ProcessEnvironment
    from bicorn.config import Settings
    from bicorn.observe.log import Logger


class ReloadFailed(Exception):
    """The new configuration does not work; the text is for the log and holds the user's traceback if there is one."""


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
            app = _application(settings, current, log)
            environment.enter(app)
            worker_class = load_worker_class(settings)
            log.setup(settings)  # Restores the previous configuration by itself when it fails.
            undo.callback(log.setup, current.settings)
            listeners = _listeners(settings, current, log, keep=keep_listeners)
            undo.callback(close_listeners, [new for new in listeners if new not in current.listeners], unlink=True)
            if settings.preload_app:
                app.wsgi()
        undo.pop_all()
    return Generation(number, settings, app, worker_class, listeners, settings.workers)


def _application(settings: Settings, current: Generation, log: Logger) -> Application:
    app = current.app.renew(settings)
    if settings.preload_app and settings.app_uri == current.settings.app_uri and current.app.callable is not None:
        # The modules are in sys.modules: loading again would give the old code under the name of the new.
        log.info("preload_app: the configuration is reloaded, the application's code is not.")
        app.callable = current.app.callable
    return app


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
