"""What tests of logging share: settings as plain values, an exchange as plain values, loggers put back afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


@dataclass(frozen=True)
class LogValues:
    """The settings that a Logger reads, with Gunicorn's defaults."""

    errorlog: str | None = "-"
    accesslog: str | None = None
    access_log_format: str = DEFAULT_FORMAT
    loglevel: str = "info"
    capture_output: bool = False
    logger_class: Any = "gunicorn.glogging.Logger"  # a name or a class
    logconfig: str | None = None
    logconfig_dict: dict[str, Any] = field(default_factory=dict)
    logconfig_json: str | None = None
    syslog: bool = False
    syslog_addr: str = "udp://localhost:514"
    syslog_prefix: str | None = None
    syslog_facility: str = "user"
    disable_redirect_access_to_syslog: bool = False
    proc_name: str = "run:app"
    uid: int = field(default_factory=os.geteuid)
    gid: int = field(default_factory=os.getegid)


@dataclass
class Response:
    """A response, as far as the access log reads it."""

    status: str = "200 OK"
    sent: int | None = 12
    headers: list[tuple[str, str]] = field(
        default_factory=lambda: [("Content-Type", "text/html"), ("X-Served-By", "w1")]
    )


@dataclass
class Request:
    """A request, as far as the access log reads it."""

    headers: list[tuple[str, str]] = field(
        default_factory=lambda: [("HOST", "example.com"), ("X-FORWARDED-FOR", "10.1.2.3")]
    )


def environ(**changes: str) -> dict[str, Any]:
    """The environ of an ordinary request, with changes."""
    return {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/shop/caf%C3%A9?q=1",
        "PATH_INFO": "/shop/caf",
        "QUERY_STRING": "q=1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_REFERER": "http://example.com/start",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11)",
        "HTTP_AUTHORIZATION": "Basic YWxpY2U6c2VjcmV0",
        "SERVER_PORT": "8000",
        **changes,
    }


@contextlib.contextmanager
def loggers_put_back() -> Iterator[None]:
    """Undo whatever the block does to the root logger and to both of ours."""
    logs = [logging.getLogger(name) for name in (None, "gunicorn.error", "gunicorn.access")]
    before = [(log.handlers[:], log.filters[:], log.level, log.propagate, log.disabled) for log in logs]
    for log in logs[1:]:
        log.handlers.clear()
    try:
        yield
    finally:
        for log, (handlers, filters, level, propagate, disabled) in zip(logs, before, strict=True):
            for handler in log.handlers:
                if handler not in handlers:
                    handler.close()
            log.handlers[:], log.filters[:] = handlers, filters
            log.propagate, log.disabled = propagate, disabled
            log.setLevel(level)
