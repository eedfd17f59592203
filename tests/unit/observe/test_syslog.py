"""Syslog over real sockets: what arrives, and what happens when nothing listens."""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bicorn.errors import ConfigError
from bicorn.observe import syslog
from bicorn.observe.log import Logger
from bicorn.observe.syslog import SyslogHandler, parse_syslog_address
from harness.logs import LogValues, Request, Response, environ

DEADLINE_S = 10.0
DGRAM, STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:///dev/log", (None, "/dev/log")),
        ("unix:///dev/log#dgram", (DGRAM, "/dev/log")),
        ("unix:///dev/log#stream", (STREAM, "/dev/log")),
        ("udp://localhost:514", (DGRAM, ("localhost", 514))),
        ("udp://Logs.Example", (DGRAM, ("logs.example", 514))),
        ("udp://", (DGRAM, ("localhost", 514))),
        ("tcp://10.0.0.1:601", (STREAM, ("10.0.0.1", 601))),
        ("tcp://[::1]:601", (STREAM, ("::1", 601))),
        ("udp://[FE80::1]", (DGRAM, ("fe80::1", 514))),
    ],
)
def test_addresses(text: str, expected: Any) -> None:
    assert parse_syslog_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "http://x",
        "udp:localhost",
        "tcp://h:port",
        "tcp://h:99999",
        "unix://",
        "unix:///x#y",
        "udp://h:",
    ],
)
def test_what_is_not_an_address_is_refused_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="syslog_addr"):
        parse_syslog_address(text)


def bound(family: int, kind: int, address: Any) -> socket.socket:
    server = socket.socket(family, kind)
    server.settimeout(DEADLINE_S)
    server.bind(address)
    if kind == STREAM:
        server.listen(1)
    return server


def test_both_logs_arrive_over_udp_with_facility_level_and_identity() -> None:
    with bound(socket.AF_INET, DGRAM, ("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        log = Logger(LogValues(syslog=True, syslog_addr=f"udp://127.0.0.1:{port}", syslog_facility="local3"))
        log.error("a fault of %s", "mine")
        error = server.recv(4096)
        log.access(Response(), Request(), environ(), timedelta())
        access = server.recv(4096)
    assert error.startswith(b"<%d>gunicorn.run.app.error: [" % (19 << 3 | 3))
    assert error.endswith(b"] a fault of mine\0")
    assert access.startswith(b"<%d>gunicorn.run.app.access: [" % (19 << 3 | 6))
    assert b'"GET /shop/caf%C3%A9?q=1 HTTP/1.1" 200 12' in access


def test_the_prefix_replaces_the_process_name_and_access_may_stay_out() -> None:
    with bound(socket.AF_INET, DGRAM, ("127.0.0.1", 0)) as server:
        cfg = LogValues(
            syslog=True,
            syslog_addr=f"udp://127.0.0.1:{server.getsockname()[1]}",
            syslog_prefix="shop%d",
            disable_redirect_access_to_syslog=True,
        )
        log = Logger(cfg)
        log.access(Response(), Request(), environ(), timedelta())
        log.info("first thing to arrive")
        assert server.recv(4096).startswith(b"<14>gunicorn.shop%d.error: [")


@pytest.mark.parametrize("suffix", ["", "#dgram"])
def test_a_unix_datagram_socket(suffix: str, tmp_path: Path) -> None:
    with bound(socket.AF_UNIX, DGRAM, str(tmp_path / "log")) as server:
        log = Logger(LogValues(syslog=True, syslog_addr=f"unix://{tmp_path}/log{suffix}"))
        log.info("hello")
        assert server.recv(4096).endswith(b"] hello\0")


@pytest.mark.parametrize("suffix", ["", "#stream"])
def test_a_unix_stream_socket(suffix: str, tmp_path: Path) -> None:
    with bound(socket.AF_UNIX, STREAM, str(tmp_path / "log")) as server:
        log = Logger(LogValues(syslog=True, syslog_addr=f"unix://{tmp_path}/log{suffix}"))
        peer, _ = server.accept()
        log.info("hello")
        assert peer.makefile("rb").read1().endswith(b"] hello\0")
        peer.close()


def errors_only(server: socket.socket) -> Logger:
    """A log with one connection: each of the two logs has its own."""
    addr = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    return Logger(LogValues(syslog=True, syslog_addr=addr, disable_redirect_access_to_syslog=True))


def test_a_forked_process_has_a_connection_of_its_own() -> None:
    with bound(socket.AF_INET, STREAM, ("127.0.0.1", 0)) as server:
        log = errors_only(server)
        first, _ = server.accept()
        child = os.fork()
        if child == 0:
            log.info("from the child")
            os._exit(0)
        second, _ = server.accept()
        second.settimeout(DEADLINE_S)
        assert second.recv(4096).endswith(b"] from the child\0")
        assert os.waitpid(child, 0)[1] == 0
        log.info("from the parent")
        first.settimeout(DEADLINE_S)
        assert first.recv(4096).endswith(b"] from the parent\0")
        first.close()
        second.close()


def test_tcp_connects_again_after_the_server_went_away() -> None:
    with bound(socket.AF_INET, STREAM, ("127.0.0.1", 0)) as server:
        log = errors_only(server)
        first, _ = server.accept()
        # An abortive close, so that the very next send fails rather than the one after it.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        first.close()
        log.info("after the restart")
        second, _ = server.accept()
        second.settimeout(DEADLINE_S)
        assert second.recv(4096).endswith(b"] after the restart\0")
        second.close()


def test_a_local_daemon_may_start_after_us(tmp_path: Path) -> None:
    log = Logger(LogValues(syslog=True, syslog_addr=f"unix://{tmp_path}/log"))
    with bound(socket.AF_UNIX, DGRAM, str(tmp_path / "log")) as server:
        log.info("hello")
        assert server.recv(4096).endswith(b"] hello\0")


def test_a_tcp_server_that_is_not_there_is_an_error_at_start() -> None:
    with bound(socket.AF_INET, STREAM, ("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match=f"tcp://127.0.0.1:{port}.*refused"):
        Logger(LogValues(syslog=True, syslog_addr=f"tcp://127.0.0.1:{port}"))


def test_a_server_that_does_not_read_costs_one_bounded_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "SEND_TIMEOUT_S", 0.05)
    with bound(socket.AF_INET, STREAM, ("127.0.0.1", 0)) as server:
        handler = SyslogHandler(server.getsockname(), STREAM, 1)
        handler.connect()
        record = logging.LogRecord("x", logging.INFO, "", 0, "y" * 65536, (), None)
        started = time.monotonic()
        for _ in range(2000):  # 128 MiB: far more than the kernel's buffers of one connection hold
            handler.emit(record)
        assert time.monotonic() - started < syslog.RETRY_INTERVAL_S
        handler.close()


def test_an_unknown_facility_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"syslog_facility: 'locol0'.*local0"):
        Logger(LogValues(syslog=True, syslog_facility="locol0"))
