"""The same exchange logged by the real Gunicorn and by us: the same bytes."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gunicorn import glogging as theirs
from gunicorn.config import Config

from bicorn.observe import log as ours
from bicorn.observe.atoms import SafeAtoms, escape
from harness.logs import DEFAULT_FORMAT, Request, Response, environ, loggers_put_back


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with loggers_put_back():
        yield


def config(**settings: Any) -> Any:
    cfg = Config()
    for name, value in settings.items():
        cfg.set(name, value)
    return cfg


def close(log: Any) -> None:
    """Close the handlers of a log; Gunicorn's leaves them open when another takes its place."""
    for logger in (log.error_log, log.access_log):
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()


FORMATS = [
    DEFAULT_FORMAT,
    *(f"%({atom})s" for atom in "hlurmsUqHbBfaTDMLp"),
    "%({x-forwarded-for}i)s %({X-Forwarded-For}i)s %({missing}i)s",
    "%({content-type}o)s %({X-Served-By}o)s %({missing}o)s",
    "%({server_port}e)s %({REMOTE_ADDR}e)s %({missing}e)s",
    "%(unknown)s 100%% %(T)d %(D)09d %(M)d %(B)d",
    "%(h)-20s|%(a)10.7s|%(s)r",
    '{"status": %(s)s, "path": "%(U)s", "ms": %(M)d}',
    "constant",
]
EXCHANGES: list[tuple[Any, Any, dict[str, Any], timedelta]] = [
    (Response(), Request(), environ(), timedelta(milliseconds=5, microseconds=7)),
    (Response("404 Not Found", 0, []), Request([]), environ(), timedelta()),
    (Response("204", None, []), Request(), environ(REMOTE_ADDR=""), timedelta(seconds=61, microseconds=999_999)),
    (Response(), Request(), environ(QUERY_STRING="", HTTP_REFERER="", HTTP_USER_AGENT=""), timedelta(hours=23)),
    (Response(), Request(), environ(HTTP_USER_AGENT='quotes "inside" it', HTTP_REFERER='"'), timedelta(seconds=1)),
    (Response(), Request(), environ(HTTP_AUTHORIZATION="Bearer abc"), timedelta(seconds=1)),
    (Response(), Request(), environ(HTTP_AUTHORIZATION="basic Ym9iOng6eQ=="), timedelta(seconds=1)),
    (Response(), Request([("A", "1"), ("a", "2")]), environ(), timedelta(seconds=1)),
    (Response(headers=[("X-A", "1"), ("x-a", "2")]), Request(), environ(), timedelta(seconds=1)),
]


def line_of(module: Any, path: Path, fmt: str, exchange: tuple[Any, Any, Any, Any]) -> str:
    log = module.Logger(config(accesslog=str(path), access_log_format=fmt))
    log.now = lambda: "[now]"  # The wall clock may tick between the two lines.
    log.access(*exchange)
    close(log)
    return path.read_text()


# Gunicorn writes "None", or fails, for %(B) of a response that counts no bytes; we write 0.
CASES = [(fmt, each) for fmt in FORMATS for each in EXCHANGES if each[0].sent is not None or "(B)" not in fmt]


@pytest.mark.parametrize(("fmt", "exchange"), CASES)
def test_the_access_line_is_gunicorns(fmt: str, exchange: tuple[Any, Any, Any, Any], tmp_path: Path) -> None:
    assert line_of(ours, tmp_path / "ours", fmt, exchange) == line_of(theirs, tmp_path / "theirs", fmt, exchange)


def test_the_time_is_written_as_gunicorn_writes_it() -> None:
    pattern = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    assert re.fullmatch(pattern, theirs.Logger(config()).now())
    assert re.fullmatch(pattern, ours.Logger(config()).now())


@pytest.mark.parametrize("value", ["a\nb", "a\\b", "caf\xc3\xa9", "\x1b[2J", "\x85"])
def test_where_gunicorns_line_can_be_forged_ours_differs(value: str) -> None:
    assert theirs.SafeAtoms({"a": value})["a"] == value
    assert SafeAtoms({"a": value})["a"] == escape(value) != value


def test_durations_longer_than_a_day_differ_from_gunicorns() -> None:
    exchange = (Response(), Request(), environ(), timedelta(days=1, seconds=2))
    assert theirs.Logger(config()).atoms(*exchange)["T"] == 2
    assert ours.Logger(config()).atoms(*exchange)["T"] == 86402


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_error_lines_are_gunicorns(level: str, tmp_path: Path) -> None:
    shown = {}
    for name, module in (("ours", ours), ("theirs", theirs)):
        log: Any = module.Logger(config(errorlog=str(tmp_path / name), loglevel="debug"))
        getattr(log, level)("Listening at: %s (%s)", "http://127.0.0.1:8000", 1)
        log.log(level, "by name")
        close(log)
        text = (tmp_path / name).read_text()
        shown[name] = re.sub(r"^\[[^]]{25}\]", "[TIME]", text, flags=re.MULTILINE)
    assert shown["ours"] == shown["theirs"]
    assert shown["ours"].count("[TIME]") == 2


def test_the_logconfig_defaults_are_gunicorns() -> None:
    assert ours.CONFIG_DEFAULTS == theirs.CONFIG_DEFAULTS


def test_the_syslog_facilities_are_gunicorns_and_a_few_of_the_standard_librarys() -> None:
    assert {name: ours.SYSLOG_FACILITIES[name] for name in theirs.SYSLOG_FACILITIES} == theirs.SYSLOG_FACILITIES


def test_syslog_messages_are_gunicorns() -> None:
    received = []
    for module in (ours, theirs):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, loggers_put_back():
            server.bind(("127.0.0.1", 0))
            server.settimeout(10)
            addr = f"udp://127.0.0.1:{server.getsockname()[1]}"
            cfg = config(
                syslog=True,
                syslog_addr=addr,
                syslog_facility="LOCAL1",
                default_proc_name="shop:app",
                errorlog="/dev/null",
            )
            log: Any = module.Logger(cfg)
            log.warning("one")
            log.access(*EXCHANGES[0])
            received.append([re.sub(rb"\[\d\d/.*? \+\d{4}\]", b"[TIME]", server.recv(4096)) for _ in range(2)])
            close(log)
    assert received[0] == received[1]


@pytest.mark.parametrize(
    "text",
    ["unix:///dev/log", "unix:///dev/log#dgram", "udp://h", "udp://H:99", "tcp://[::1]:601", "tcp://[::1]", "udp://"],
)
def test_syslog_addresses_are_read_as_gunicorn_reads_them(text: str) -> None:
    assert ours.parse_syslog_address(text) == theirs.parse_syslog_address(text)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Gunicorn leaves the JSON file open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("source", ["logconfig_dict", "logconfig_json"])
def test_a_logconfig_gives_the_same_handlers(source: str, tmp_path: Path) -> None:
    given = {
        "formatters": {"json": {"format": "%(levelname)s %(message)s"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"gunicorn.error": {"level": "DEBUG", "handlers": ["console"], "propagate": False}},
    }
    (tmp_path / "log.json").write_text(json.dumps(given))
    value = given if source == "logconfig_dict" else str(tmp_path / "log.json")
    found = []
    for module in (ours, theirs):
        with loggers_put_back():
            log: Any = module.Logger(config(**{source: value}))
            found.append([shape(each) for each in (logging.root, log.error_log, log.access_log)])
    assert found[0] == found[1]


def shape(log: logging.Logger) -> tuple[object, ...]:
    handlers = [
        (type(each), each.formatter and each.formatter._fmt) for each in log.handlers if "pytest" not in repr(each)
    ]
    return log.name, log.level, log.propagate, handlers


NAMES_KEPT = set(vars(theirs.Logger)) - {"__module__", "__doc__", "__dict__", "__weakref__"}


def test_every_name_of_gunicorns_logger_is_there() -> None:
    log = ours.Logger(config())
    assert [name for name in sorted(NAMES_KEPT | set(vars(theirs.Logger(config())))) if not hasattr(log, name)] == []


def test_a_subclass_written_for_gunicorns_logger_works_on_ours(tmp_path: Path) -> None:
    class Quiet(ours.Logger):
        def access(self, resp: Any, req: Any, environ: Any, request_time: timedelta) -> None:
            if environ["PATH_INFO"] != "/health":
                super().access(resp, req, environ, request_time)

        def atoms(self, resp: Any, req: Any, environ: Any, request_time: timedelta) -> dict[str, Any]:
            return {**super().atoms(resp, req, environ, request_time), "x": "mine"}

    cfg = config(accesslog=str(tmp_path / "access.log"), access_log_format="%(x)s %(U)s")
    log = Quiet(cfg)
    log.access(Response(), Request(), environ(PATH_INFO="/health"), timedelta())
    log.access(Response(), Request(), environ(PATH_INFO="/shop"), timedelta())
    assert (tmp_path / "access.log").read_text() == "mine /shop\n"
