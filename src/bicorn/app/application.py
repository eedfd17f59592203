"""The application object that the arbiter and every worker share, as Gunicorn's workers know it.

Owns       the loaded application and what has to be true of the process before it can be loaded.
Never      decides when to load: the arbiter does with --preload, a worker otherwise.
Invariant  the user's module is imported at most once between two reloads, with chdir and sys.path already set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from bicorn.app.importer import load_app
from bicorn.app.paste import load_paste_app
from bicorn.errors import ConfigError

if TYPE_CHECKING:
    from bicorn.config import Settings


class Application:
    """What `worker.app` is: `.cfg`, `.wsgi()`, `.callable`."""

    def __init__(self, settings: Settings) -> None:
        self.cfg = settings
        self.callable: Callable[..., object] | None = None

    def chdir(self) -> None:
        """Enter the working directory and put it, and every --pythonpath entry, in front of sys.path."""
        directory = os.path.abspath(self.cfg.chdir)
        try:
            os.chdir(directory)
        except OSError as error:
            raise ConfigError(f"chdir: cannot enter {directory!r}: {error.strerror}") from None
        entries = [directory]
        if self.cfg.pythonpath:
            # Gunicorn inserts each entry in turn, so the last one of the list ends up first.
            entries += [os.path.abspath(entry) for entry in self.cfg.pythonpath.split(",") if entry]
        for entry in entries:
            if entry not in sys.path:
                sys.path.insert(0, entry)

    def load(self) -> Callable[..., object]:
        """Import the application anew."""
        if self.cfg.paste is not None:
            return load_paste_app(self.cfg.paste, defaults=self.cfg.paste_global_conf)
        uri = self.cfg.app_uri
        if uri is None:
            raise ConfigError(
                "No application was named. Give MODULE:NAME on the command line, for example 'bicorn run:app', "
                "or set wsgi_app in the configuration file."
            )
        return load_app(uri)

    def wsgi(self) -> Callable[..., object]:
        """The application; loaded by the first call."""
        if self.callable is None:
            self.callable = self.load()
        return self.callable

    def load_again(self) -> Settings:
        """Read the configuration anew, for a reload. Settings that were handed over have nothing to be read from."""
        return self.cfg

    def renew(self, settings: Settings) -> Application:
        """Give the application of other settings; this one may go on serving."""
        return Application(settings)

    def reload(self) -> None:
        """Forget the loaded application, so that the next `wsgi()` loads it again."""
        self.callable = None
