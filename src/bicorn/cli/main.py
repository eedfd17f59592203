"""The `bicorn` command.

Owns       the way from a command line to a running server, and the one place where errors become text and exit codes.
Never      knows what a setting means beyond those that end the command at once.
Invariant  an error that is the user's to mend is one message on stderr, "bicorn: …", without our traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from bicorn.app.application import Application
from bicorn.app.interface import Interface, interface_of, require_either
from bicorn.arbiter.arbiter import Arbiter
from bicorn.arbiter.promotion import is_upgrade
from bicorn.cli.closed_pipe import leave_closed_pipe
from bicorn.cli.launch import DaemonArbiter, leave_terminal
from bicorn.compat import namespace
from bicorn.config import Settings, load_settings
from bicorn.config.values import current_directory
from bicorn.errors import AppImportError, BicornError, ConfigError, ExitCode
from bicorn.observe.log import load_logger_class
from bicorn.workers.registry import load_worker_class

#: 128 + SIGINT, what a shell reports for a command ended by Ctrl-C.
EXIT_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except BicornError as error:
        for fault in error.faults if isinstance(error, ConfigError) else [error]:
            print(f"bicorn: {fault}", file=sys.stderr, flush=True)
        return int(error.exit_code)
    except KeyboardInterrupt:
        # Before the arbiter took over the signals; there is nothing to stop yet.
        return EXIT_INTERRUPTED


def _run(arguments: list[str]) -> int:
    started_in = current_directory()
    if namespace.is_wanted(os.environ):
        namespace.install()  # Before the configuration file runs: it may import gunicorn.
    settings = _load(arguments)
    if not settings.gunicorn_namespace:
        namespace.remove()
    if settings.print_config:
        try:
            print(settings.explain(), flush=True)
        except BrokenPipeError:
            return leave_closed_pipe()
    if settings.print_config or settings.check_config:
        return _check(settings)
    settings.require_app_uri()

    def load_again() -> Settings:
        return _load(arguments, started_in)

    if settings.daemon and not is_upgrade(os.environ):  # Its parent left the terminal already, and waits for its end.
        return _serve_in_background(settings, load_again)
    return Arbiter(Application(settings), load_again).run()


def _serve_in_background(settings: Settings, load_again: Callable[[], Settings]) -> int:
    launcher = leave_terminal(keep_redirected_streams=settings.enable_stdio_inheritance)
    try:
        arbiter = DaemonArbiter(Application(settings), load_again)
        arbiter.launcher = launcher
        return arbiter.run()
    except BicornError as error:
        launcher.failed(int(error.exit_code), str(error))
        raise


def _load(arguments: list[str], cwd: str | None = None) -> Settings:
    namespace.forget_server()
    return namespace.with_assigned_server(load_settings(arguments, os.environ, cwd=cwd))


def _check(settings: Settings) -> int:
    """Load the application as a worker would, and say what is wrong with it."""
    settings.require_app_uri()
    os.environ.update(settings.env)
    app = Application(settings)
    app.chdir()
    worker_class = load_worker_class(settings)
    # Opens what it logs to and refuses a format that it cannot write; what this command says stays on the terminal.
    load_logger_class(settings)(settings.replace(capture_output=False))
    try:
        application = app.wsgi()
        is_asgi_welcome = not settings.is_given("worker_class") and interface_of(application) is Interface.ASGI
        if is_asgi_welcome:
            require_either(application, settings.app_uri or "")
        else:
            worker_class.require_served(application, settings)
    except AppImportError as error:
        print(f"bicorn: error while loading the application:\n{error}", file=sys.stderr, flush=True)
        return ExitCode.FAILED
    return ExitCode.OK
