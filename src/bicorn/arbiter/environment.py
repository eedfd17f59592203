"""What a configuration changes in the arbiter's own process, and how that is taken back.

Owns       the environment variables of raw_env, the working directory, and the title of the process.
Never      touches anything that no setting named.
Invariant  after enter(b) the process looks as if enter(a) had never been called before it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from bicorn.config.values import current_directory

if TYPE_CHECKING:
    from bicorn.app.application import Application


class ProcessEnvironment:
    """The process as it was started, and whose configuration it wears now."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.directory = current_directory()  # where the process was started
        self._original = dict(environ)
        self._worn: frozenset[str] = frozenset()

    @property
    def original(self) -> Mapping[str, str]:
        """The variables as they were when the process was started."""
        return self._original

    def enter(self, app: Application) -> None:
        """Set the variables of this configuration and go to its directory."""
        self.leave()
        variables = app.cfg.env
        os.environ.update(variables)
        self._worn = frozenset(variables)
        app.chdir()

    def leave(self) -> None:
        """Give the variables that a configuration set their original values, or none."""
        for name in self._worn:
            if name in self._original:
                os.environ[name] = self._original[name]
            else:
                os.environ.pop(name, None)
        self._worn = frozenset()


def set_title(role: str, name: str) -> None:
    """Show what this process is in ps and top."""
    setproctitle(f"bicorn: {role} [{name}]")
