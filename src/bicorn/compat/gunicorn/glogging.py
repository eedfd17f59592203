"""`gunicorn.glogging`, for subclasses given as logger_class and for logging dicts laid over CONFIG_DEFAULTS."""

from bicorn.observe.log import (
    CONFIG_DEFAULTS,
    SYSLOG_FACILITIES,
    Logger,
    SafeAtoms,
    loggers,
    parse_syslog_address,
)

__all__ = ["CONFIG_DEFAULTS", "SYSLOG_FACILITIES", "Logger", "SafeAtoms", "loggers", "parse_syslog_address"]
