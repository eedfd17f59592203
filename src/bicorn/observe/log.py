"""The error log and the access log, with the surface that Gunicorn's users and their subclasses know.

Owns       the loggers `gunicorn.error` and `gunicorn.access` and every handler that settings put on them.
Never      removes a handler that the user's own code attached.
Invariant  after `setup` either all of the new settings are in force or all of the previous ones still are.

The names of loggers, methods and attributes are Gunicorn's, because logging configurations and subclasses name them.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final, TextIO, cast

from bicorn.errors import ConfigError
from bicorn.observe.atoms import SafeAtoms, basic_auth_user, check_format, gather_atoms
from bicorn.observe.capture import OutputCapture
from bicorn.observe.log_file import LogFileHandler
from bicorn.observe.logconfig import CONFIG_DEFAULTS, apply_logconfig
from bicorn.observe.settings import LogSettings
from bicorn.observe.syslog import (
    SYSLOG_FACILITIES,
    make_syslog_handler,
    parse_syslog_address,
)

__all__ = ["CONFIG_DEFAULTS", "SYSLOG_FACILITIES", "Logger", "SafeAtoms", "loggers", "parse_syslog_address"]


def loggers() -> list[logging.Logger]:
    """Every logger of the process, the root included."""
    names = list(logging.root.manager.loggerDict)
    return [logging.root, *(logging.getLogger(name) for name in names)]


class Logger:
    """The object that the arbiter, workers, hooks and subclasses call `log`."""

    LOG_LEVELS: ClassVar[dict[str, int]] = {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
    }
    loglevel = logging.INFO
    error_fmt = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
    datefmt = "[%Y-%m-%d %H:%M:%S %z]"
    access_fmt = "%(message)s"
    syslog_fmt = "[%(process)d] %(message)s"
    # Any: subclasses put any class here that takes the atoms and gives a mapping.
    atoms_wrapper_class: Any = SafeAtoms
    _access_log_enabled: bool | None = None

    def __init__(self, cfg: LogSettings) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.propagate = self.access_log.propagate = False
        # Kept for subclasses of Gunicorn's class, which may read them; the handlers themselves live on the loggers.
        self.error_handlers: list[logging.Handler] = []
        self.access_handlers: list[logging.Handler] = []
        self.lock = threading.Lock()
        self.cfg = cfg
        self._capture = OutputCapture()
        self._from_logconfig: list[logging.Handler] = []
        self._in_force: LogSettings | None = None
        self.setup(cfg)

    # -- settings -------------------------------------------------------------------------------------------------

    def setup(self, cfg: LogSettings) -> None:
        """Put `cfg` in force, at start and again at each reload; on failure the previous settings stay in force."""
        previous = self._in_force
        try:
            self._apply(cfg)
        except Exception:
            if previous is not None:
                self._apply(previous)
            raise
        self._in_force = cfg

    def _apply(self, cfg: LogSettings) -> None:
        if self._is_formatting_ours() and _is_access_logged(cfg):
            check_format(cfg.access_log_format)
        handlers = self._make_handlers(cfg)
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        self._access_log_enabled = self._compute_access_log_enabled()
        self._drop_handlers()
        self.error_log.setLevel(self.loglevel)
        self.access_log.setLevel(logging.INFO)
        for log, handler in handlers:
            log.addHandler(handler)
        if apply_logconfig(cfg):
            self._from_logconfig = [*self.error_log.handlers, *self.access_log.handlers]
        # Last, because it changes the whole process and nothing after it may fail.
        self._capture.follow(cfg.errorlog if cfg.capture_output and cfg.errorlog != "-" else None)

    def _make_handlers(self, cfg: LogSettings) -> list[tuple[logging.Logger, logging.Handler]]:
        """All handlers that `cfg` asks for; made before the old ones go, so that a failure changes nothing."""
        made: list[tuple[logging.Logger, logging.Handler]] = []
        with contextlib.ExitStack() as undo:

            def keep(log: logging.Logger, handler: logging.Handler) -> None:
                undo.callback(handler.close)
                mark_ours(handler)
                made.append((log, handler))

            if cfg.errorlog is not None:
                error_format = logging.Formatter(self.error_fmt, self.datefmt)
                keep(self.error_log, _make_handler(cfg.errorlog, error_format, sys.stderr, cfg))
            if cfg.accesslog is not None:
                access_format = logging.Formatter(self.access_fmt)
                keep(self.access_log, _make_handler(cfg.accesslog, access_format, sys.stdout, cfg))
            if cfg.syslog:
                keep(self.error_log, make_syslog_handler(cfg, self.syslog_fmt, "error"))
            if cfg.syslog and not cfg.disable_redirect_access_to_syslog:
                keep(self.access_log, make_syslog_handler(cfg, self.syslog_fmt, "access"))
            undo.pop_all()
        return made

    def _drop_handlers(self) -> None:
        """Remove and close what an earlier setup attached; what the user's code attached stays."""
        for log in (self.error_log, self.access_log):
            for handler in list(log.handlers):
                if is_ours(handler) or handler in self._from_logconfig:
                    log.removeHandler(handler)
                    with contextlib.suppress(OSError):  # A full disk does not take the last lines.
                        handler.close()
            log.propagate = False
        self._from_logconfig = []

    # Called by subclasses that give a log another format after super().setup(cfg).

    def _get_gunicorn_handler(self, log: logging.Logger) -> logging.Handler | None:
        return next(filter(is_ours, log.handlers), None)

    def _set_handler(
        self, log: logging.Logger, output: str | None, fmt: logging.Formatter, stream: TextIO | None = None
    ) -> None:
        """Replace the handler that settings made for `log`."""
        fresh = None if output is None else _make_handler(output, fmt, stream or sys.stderr, self.cfg)
        previous = self._get_gunicorn_handler(log)
        if previous is not None:
            log.removeHandler(previous)
            previous.close()
        if fresh is not None:
            mark_ours(fresh)
            log.addHandler(fresh)

    def _set_syslog_handler(self, log: logging.Logger, cfg: LogSettings, fmt: str, name: str) -> None:
        handler = make_syslog_handler(cfg, fmt, name)
        mark_ours(handler)
        log.addHandler(handler)

    # -- the error log --------------------------------------------------------------------------------------------

    # Any below: logging's own signature takes any argument and any keyword. stacklevel makes %(filename)s and
    # %(funcName)s name the caller instead of this file.

    def critical(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at CRITICAL to the error log."""
        kwargs.setdefault("stacklevel", 2)
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at ERROR to the error log."""
        kwargs.setdefault("stacklevel", 2)
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at WARNING to the error log."""
        kwargs.setdefault("stacklevel", 2)
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at INFO to the error log."""
        kwargs.setdefault("stacklevel", 2)
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at DEBUG to the error log."""
        kwargs.setdefault("stacklevel", 2)
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at ERROR with the traceback of the exception being handled."""
        kwargs.setdefault("stacklevel", 2)
        kwargs.setdefault("exc_info", True)
        self.error_log.error(msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at a level given by number or by name."""
        if isinstance(lvl, str):
            lvl = self.LOG_LEVELS.get(lvl.lower(), logging.INFO)
        kwargs.setdefault("stacklevel", 2)
        self.error_log.log(lvl, msg, *args, **kwargs)

    # -- the access log -------------------------------------------------------------------------------------------

    @property
    def access_log_enabled(self) -> bool:
        """Whether any setting asks for access lines; workers skip the work otherwise."""
        if self._access_log_enabled is None:  # A subclass replaced setup() without calling ours.
            self._access_log_enabled = self._compute_access_log_enabled()
        return self._access_log_enabled

    def _compute_access_log_enabled(self) -> bool:
        return _is_access_logged(self.cfg)

    # Any below: workers of every class, ours and others', pass objects of their own for a response and a request.

    def atoms(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> dict[str, Any]:
        """The values that an access log format can name, for one exchange."""
        return gather_atoms(resp, req, environ, request_time, user=self._get_user(environ), now=self.now())

    def access(self, resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta) -> None:
        """Write the access line of one exchange."""
        if not self.access_log_enabled:
            return
        try:
            atoms = self.atoms_wrapper_class(self.atoms(resp, req, environ, request_time))
            # The format and its mapping go in apart, because filters and JSON formatters read `record.args`.
            self.access_log.info(self.cfg.access_log_format, atoms)
        except Exception:  # noqa: BLE001 - see below
            # A subclass's atoms or filter failed: the exchange itself was fine and its connection must live on.
            self.error("The access line of a request could not be written:\n%s", traceback.format_exc())

    def now(self) -> str:
        """This moment as the Common Log Format writes it."""
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def _get_user(self, environ: Mapping[str, Any]) -> str | None:
        return basic_auth_user(environ.get("HTTP_AUTHORIZATION"))

    def _is_formatting_ours(self) -> bool:
        """Whether no subclass changed what an access line is made of."""
        cls = type(self)
        return cls.atoms is Logger.atoms and cls.access is Logger.access and self.atoms_wrapper_class is SafeAtoms

    # -- files ----------------------------------------------------------------------------------------------------

    @property
    def logfile(self) -> io.TextIOWrapper | None:
        """The file that captured output goes to, if any."""
        return self._capture.file

    def reopen_files(self) -> None:
        """Follow a rotation (USR1): every log file of the process is opened again under its name.

        Runs inside a signal handler, so a file that cannot be opened is reported and its old one kept.
        """
        with contextlib.suppress(OSError):
            self._capture.reopen()
        for handler in _file_handlers():
            try:
                _reopen(handler)
            except OSError as error:
                self.error(
                    "Cannot reopen the log file %r: %s; still writing to the old one.", handler.baseFilename, error
                )

    def close_on_exec(self) -> None:
        """Keep log files out of programs that a worker starts."""
        for handler in _file_handlers():
            if handler.stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    os.set_inheritable(handler.stream.fileno(), False)


def _is_access_logged(cfg: LogSettings) -> bool:
    to_syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
    return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or to_syslog)


_OURS: Final = "_gunicorn"


def is_ours(handler: logging.Handler) -> bool:
    """Whether settings made this handler. The mark is Gunicorn's, for code that looks for it."""
    return bool(getattr(handler, _OURS, False))


def mark_ours(handler: logging.Handler) -> None:
    """Mark `handler` as made from settings, so that the next setup may remove it."""
    setattr(handler, _OURS, True)


def _make_handler(output: str, fmt: logging.Formatter, stream: TextIO, cfg: LogSettings) -> logging.Handler:
    """A handler that writes to the file `output`, or for "-" to `stream`."""
    handler: logging.Handler
    if output == "-":
        handler = logging.StreamHandler(stream)
    else:
        try:
            # Workers that drop privileges open it again after a rotation.
            handler = LogFileHandler(output, owner=(cfg.uid, cfg.gid))
        except OSError as error:
            raise ConfigError(
                f"Cannot write to the log file {output!r}: {error.strerror}. Give errorlog or accesslog a file in a "
                "directory that exists and that this user may write, or '-'."
            ) from None
    handler.setFormatter(fmt)
    return handler


def _file_handlers() -> Iterator[logging.FileHandler]:
    seen: set[int] = set()
    for log in loggers():
        for handler in log.handlers:
            if isinstance(handler, logging.FileHandler) and id(handler) not in seen:
                seen.add(id(handler))
                yield handler


def _reopen(handler: logging.FileHandler) -> None:
    """Point the handler's file at the name it was opened with.

    The new file is laid under the old descriptor with dup2, which the kernel does in one step: a record being written
    by another thread, or by the code that this signal interrupted, lands in one of the two files and in no closed one.
    """
    old = handler.stream
    if old is None:
        return  # Opened at its first record (delay), or closed; the next record opens it.
    # Interrupted inside a write, that write flushes by itself; and rotation may be what a full disk needs.
    with contextlib.suppress(RuntimeError, ValueError, OSError):
        old.flush()
    fresh = handler._open()
    try:
        os.dup2(fresh.fileno(), old.fileno(), inheritable=False)
    except (OSError, ValueError, AttributeError):
        handler.stream = fresh  # Not backed by a descriptor, a compressing stream for example.
        old.close()
        return
    fresh.close()


#: Names of `logger_class` that mean this one: the default of configurations written for Gunicorn, and its short form.
OUR_NAMES: Final = frozenset({"simple", "gunicorn.glogging.Logger", "bicorn.observe.log.Logger"})


def load_logger_class(cfg: LogSettings) -> type[Logger]:
    """The class that `logger_class` names: a class, a dotted name, or `egg:DISTRIBUTION#NAME`."""
    named = cfg.logger_class
    found: Any = Logger if isinstance(named, str) and named in OUR_NAMES else named  # Any: see LogSettings
    if isinstance(found, str):
        try:
            found = _entry_point(found) if found.startswith("egg:") else _dotted(found)
        except (ImportError, AttributeError, LookupError, ValueError) as error:
            raise ConfigError(
                f"logger_class: cannot load {named!r}: {error}. Give a class as 'package.module.Class'."
            ) from error
    if not inspect.isclass(found):
        raise ConfigError(f"logger_class: {named!r} is not a class")
    install = getattr(found, "install", None)
    if install is not None:
        install()
    return cast("type[Logger]", found)


def _dotted(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ImportError(f"{name!r} has no module in front of it")
    found: object = getattr(importlib.import_module(module), attribute)
    return found


def _entry_point(uri: str) -> object:
    import importlib.metadata  # A tenth of a start, for the few who name a class so.

    distribution, _, name = uri.removeprefix("egg:").partition("#")
    for entry in importlib.metadata.distribution(distribution).entry_points:
        if entry.group == "gunicorn.loggers" and entry.name == (name or "Logger"):
            found: object = entry.load()
            return found
    raise LookupError(f"{distribution!r} has no entry point {name!r} in the group 'gunicorn.loggers'")
