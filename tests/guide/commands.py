"""Runs the command lines of the user's guide as their reader does.

Owns       a copy of a user's project and the servers that were started in it.
Never      changes a line, but for the command's and the application's name.
Invariant  the command is found on PATH and started by the kernel, as by a shell.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path

from harness.server import Server

#: Becomes the command that is given: found on PATH, run by the kernel, with the pid that the harness knows.
EXEC = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
#: The same, on one CPU.
EXEC_ON_ONE_CPU = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + EXEC


@dataclasses.dataclass(frozen=True)
class Project:
    """One copy of a user's project, and how its files are called."""

    directory: Path
    app: str  # as the command line names it
    views: str  # the file that holds VERSION

    def set_version(self, version: int) -> None:
        """Deploy other code."""
        file = self.directory / self.views
        file.write_text(file.read_text().replace("VERSION = 1\n", f"VERSION = {version}\n"))


class Guide:
    """Runs command lines in a project's directory, as its user does."""

    def __init__(self, project: Project, command: str, path: str) -> None:
        self.project = project
        self.command = command
        self._path = path
        self._started: list[Server] = []

    def run(self, line: str, env: Mapping[str, str] | None = None, *, wait: bool = True, on: str = EXEC) -> Server:
        """Run a line of the guide, with COMMAND and APP put in."""
        words = shlex.split(line.replace("COMMAND", self.command).replace("APP", self.project.app))
        server = Server(
            None,
            *words,
            directory=self.project.directory,
            # Code is changed within one tick of the clock that compiled modules are compared by.
            env={"PATH": self._path, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
            bind=None,
            launcher=["-c", on],
        )
        self._started.append(server)
        return server.start(wait=wait)

    def close(self) -> None:
        """End what was started."""
        for server in self._started:
            server.__exit__()
