"""Sending log lines to syslog.

Owns       the address grammar, the facility names and the handler.
Never      lets a log server that does not read hold the process: a line that cannot be sent in time is dropped.
Invariant  one record is one message, and no wait is longer than SEND_TIMEOUT_S.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from logging.handlers import SysLogHandler
from typing import Final

from bicorn.errors import ConfigError
from bicorn.observe.settings import LogSettings

SYSLOG_FACILITIES: Final[dict[str, int]] = {
    **SysLogHandler.facility_names,
    "security": SysLogHandler.LOG_AUTH,  # a name from before auth and authpriv were told apart
}

#: A local daemon answers in microseconds; a second is far past anything healthy and still far below every timeout.
SEND_TIMEOUT_S: Final = 1.0
#: After a failure, lines are dropped for this long: a dead server costs one wait in five seconds, not one a line.
RETRY_INTERVAL_S: Final = 5.0
_PORT: Final = 514  # syslog over UDP, RFC 5426 section 3.3

_UNIX_KINDS = {"": None, "dgram": socket.SOCK_DGRAM, "stream": socket.SOCK_STREAM}
_INET_KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}

Address = tuple[str, int] | str


def parse_syslog_address(addr: str) -> tuple[socket.SocketKind | None, Address]:
    """Read `unix://PATH[#dgram|#stream]`, `udp://HOST[:PORT]` or `tcp://HOST[:PORT]`."""
    scheme, separator, rest = addr.partition("://")
    if scheme == "unix" and separator:
        path, _, kind = rest.partition("#")
        if path and kind in _UNIX_KINDS:
            return _UNIX_KINDS[kind], path
    elif scheme in _INET_KINDS and separator:
        return _INET_KINDS[scheme], _parse_host(rest, addr)
    raise _bad_address(addr)


def _parse_host(rest: str, addr: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        _, colon, port = tail.partition(":")
    else:
        host, colon, port = rest.partition(":")
    if not colon:
        return host.lower() or "localhost", _PORT
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise _bad_address(addr)
    return host.lower() or "localhost", int(port)


def _bad_address(addr: str) -> ConfigError:
    return ConfigError(
        f"syslog_addr: {addr!r} is not an address; write unix:///dev/log, unix:///dev/log#dgram, udp://localhost:514 "
        "or tcp://[::1]:601"
    )


class SyslogHandler(logging.Handler):
    """Sends records as RFC 3164 messages ending in NUL, the form of the standard library's handler.

    That handler is not used because its sends have no bound: a TCP log server that stops reading would stop all
    workers.
    """

    def __init__(self, address: Address, kind: socket.SocketKind | None, facility: int) -> None:
        super().__init__()
        self._address = address
        self._kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM) if kind is None else (kind,)
        self._facility = facility
        self._socket: socket.socket | None = None
        self._pid = os.getpid()
        self._silent_until = 0.0

    def connect(self) -> None:
        """Connect now; raises OSError. Otherwise the first record connects."""
        self._disconnect()
        error: OSError | None = None
        for kind in self._kinds:
            for family, address in self._resolve(kind):
                fresh = socket.socket(family, kind)
                fresh.settimeout(SEND_TIMEOUT_S)
                try:
                    fresh.connect(address)
                except OSError as refused:
                    fresh.close()
                    error = refused
                else:
                    self._socket = fresh
                    return
        raise error or OSError("the name has no address")

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, or drop it if the log server does not take it in time."""
        now = time.monotonic()
        if now < self._silent_until:
            return
        try:
            message = f"<{self._priority(record)}>{self.format(record)}\0".encode()
        except Exception:  # noqa: BLE001 - any fault of a subclass or of a record
            self.handleError(record)  # A record whose arguments do not fit its message: logging's own report.
            return
        try:
            self._send(message)
        except OSError:
            self._disconnect()
            self._silent_until = time.monotonic() + RETRY_INTERVAL_S

    def close(self) -> None:
        """Close the socket; a record that comes later connects again."""
        self._disconnect()
        super().close()

    def _send(self, message: bytes) -> None:
        if self._pid != os.getpid():
            # Forked: two processes writing to one stream could cut into each other's messages.
            self._pid = os.getpid()
            self._disconnect()
        if self._socket is not None:
            try:
                self._socket.sendall(message)
                return
            except TimeoutError:
                raise
            except OSError:  # The daemon was restarted: its old socket is dead, its address is not.
                pass
        self.connect()
        assert self._socket is not None  # connect() sets it or raises.
        self._socket.sendall(message)

    def _resolve(self, kind: socket.SocketKind) -> list[tuple[int, tuple[object, ...] | str]]:
        if isinstance(self._address, str):
            return [(socket.AF_UNIX, self._address)]
        found = socket.getaddrinfo(*self._address, 0, kind)
        return [(family, address) for family, _, _, _, address in found]

    def _priority(self, record: logging.LogRecord) -> int:
        severity = SysLogHandler.priority_map.get(record.levelname, "warning")
        return self._facility << 3 | SysLogHandler.priority_names[severity]

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def make_syslog_handler(cfg: LogSettings, fmt: str, log_name: str) -> logging.Handler:
    """The handler that sends one of the two logs to `syslog_addr`."""
    facility = SYSLOG_FACILITIES.get(cfg.syslog_facility.lower())
    if facility is None:
        names = ", ".join(sorted(SYSLOG_FACILITIES))
        raise ConfigError(f"syslog_facility: {cfg.syslog_facility!r} is not one of {names}")
    kind, address = parse_syslog_address(cfg.syslog_addr)
    handler = SyslogHandler(address, kind, facility)
    try:
        handler.connect()
    except OSError as error:
        # A local daemon may come up after us, as openlog(3) allows; a host that cannot be reached is a mistake.
        if not isinstance(address, str):
            raise ConfigError(f"syslog_addr: cannot reach {cfg.syslog_addr!r}: {error}") from None
    # The identity begins with "gunicorn." because the filter rules of people's log servers do.
    name = cfg.syslog_prefix or (cfg.proc_name or "gunicorn").replace(":", ".")
    identity = f"gunicorn.{name}.{log_name}"
    handler.setFormatter(logging.Formatter(f"{identity.replace('%', '%%')}: {fmt}"))
    return handler
