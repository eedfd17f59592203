"""What modules expect of each other where one must not import the other.

Owns       the protocols of the log, the application and the process that are handed downwards.
Never      holds code that runs.
Invariant  a protocol names only what its users call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bicorn.config import Settings


class Log(Protocol):
    """The part of a logger that code below the arbiter writes to; the object may be the user's own class."""

    def critical(self, msg: object, *args: object) -> None: ...
    def error(self, msg: object, *args: object) -> None: ...
    def warning(self, msg: object, *args: object) -> None: ...
    def info(self, msg: object, *args: object) -> None: ...
    def debug(self, msg: object, *args: object) -> None: ...
    def exception(self, msg: object, *args: object) -> None: ...


class ProcessLog(Log, Protocol):
    """The part of a logger that owns descriptors, which a process has to reopen or to keep from its children."""

    def reopen_files(self) -> None: ...
    def close_on_exec(self) -> None: ...


class App(Protocol):
    """The application object that workers get."""

    cfg: Settings
    callable: Callable[..., object] | None

    def wsgi(self) -> Callable[..., object]: ...
