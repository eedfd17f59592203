"""Every error that Bicorn raises on purpose, and the exit code each one ends the server with.

Owns       the exception types and the exit codes of the `bicorn` command.
Never      formats a log line or exits the process: `cli.main` does both, in one place.
Invariant  whose fault it is can be read from the type; the message says what, where it came from, what to do.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """The exit codes of the arbiter; numbers that Gunicorn's users test for."""

    OK = 0
    FAILED = 1  # configuration, bind, anything at run time
    USAGE = 2  # a command line that cannot be parsed
    WORKER_BOOT_ERROR = 3  # a worker died before it was ready
    APP_LOAD_ERROR = 4  # the application could not be imported


class BicornError(Exception):
    """Base of every error that is explained to the user without a traceback of ours."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class ConfigError(BicornError):
    """A setting is wrong: its name, its value, or a combination; says where the value came from.

    There may be several faults at once.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class BindError(BicornError):
    """A listener could not be made: address in use, no permission, not a socket."""


class AppImportError(BicornError):
    """The application named by the user could not be found or loaded."""

    exit_code = ExitCode.APP_LOAD_ERROR


class HaltServer(BaseException):
    """Raised inside the arbiter to end it with an exit code and a reason for the log.

    Not an `Exception`: a hook's `except Exception` must not swallow the end of the server.
    """

    def __init__(self, reason: str, exit_code: ExitCode | int = ExitCode.FAILED) -> None:
        super().__init__(reason, exit_code)
        self.reason = reason
        self.exit_code = int(exit_code)
