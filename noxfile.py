"""The matrix: every CPython that Bicorn supports. People run `make test`; this is for the others that are installed."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Build for one CPython and run the Python suite."""
    session.install("--upgrade", "pip>=25.1")
    session.install("--group", "dev", ".")
    session.run("pytest", "--numprocesses", "auto", "--dist", "worksteal", *session.posargs)
