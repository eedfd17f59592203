"""Whether access lines may be formatted and written natively.

Owns       that decision, and nothing of the writing.
Never      chooses the native way when anything of the user's would miss a record: a handler, a filter, a subclass.
Invariant  the native line and the line of `Logger.access` are the same bytes.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import Final

from bicorn.observe.log import Logger, is_ours
from bicorn.observe.log_file import LogFileHandler
from bicorn.observe.settings import LogSettings


@dataclass(frozen=True)
class NativeTarget:
    """Where and how the native loop writes access lines."""

    fd: int  # open already: whoever gave up root may not open it
    path: str | None  # None is standard output
    format: str


# Somebody may assign to the class (one third-party worker does), so the originals are remembered here.
_ACCESS: Final = Logger.access
_ATOMS: Final = Logger.atoms


def native_target(log: object, cfg: LogSettings) -> NativeTarget | None:
    """The target for native access lines, or None when every line has to go through Python.

    Ask in the worker after the application was loaded: applications attach handlers and filters while they load.
    """
    if type(log) is not Logger or not _is_untouched(log):
        return None
    if not cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json:
        return None
    if cfg.syslog and not cfg.disable_redirect_access_to_syslog:
        return None
    if not _is_plain(log.access_log, log.access_fmt, cfg.accesslog) or not _compiles(cfg.access_log_format):
        return None
    handler = log.access_log.handlers[0]
    assert isinstance(handler, logging.StreamHandler), "_is_plain() said so"
    if handler.stream is None:
        return None  # Somebody closed it.
    path = handler.baseFilename if isinstance(handler, LogFileHandler) else None
    return NativeTarget(handler.stream.fileno(), path, cfg.access_log_format)


def _is_untouched(log: Logger) -> bool:
    """Whether the methods that make a line are the ones of this package, on the class and on the object."""
    makers = {"access", "atoms", "now", "_get_user", "atoms_wrapper_class"}
    return Logger.access is _ACCESS and Logger.atoms is _ATOMS and not makers & vars(log).keys()


def _is_plain(logger: logging.Logger, fmt: str, output: str) -> bool:
    """Whether the logger has the one handler that settings made, and nothing between a record and its file."""
    if type(logger) is not logging.Logger or logger.name != "gunicorn.access":
        return False
    if logger.filters or logger.propagate or not logger.isEnabledFor(logging.INFO) or len(logger.handlers) != 1:
        return False
    handler = logger.handlers[0]
    formatter = handler.formatter
    if not is_ours(handler) or handler.filters or handler.level > logging.INFO:
        return False
    if type(formatter) is not logging.Formatter or formatter._fmt != fmt:
        return False
    if output == "-":
        return type(handler) is logging.StreamHandler and handler.stream is sys.__stdout__
    return type(handler) is LogFileHandler


def _compiles(fmt: str) -> bool:
    # Imported here so that the arbiter's side of the log works wherever Python does.
    from bicorn import _core

    try:
        _core.compile_access_format(fmt)
    except ValueError:
        return False
    return True
