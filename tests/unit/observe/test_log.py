"""Logger: files, standard streams, levels, rotation, and settings that change."""

from __future__ import annotations

import logging
import os
import signal
import stat
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bicorn.errors import ConfigError
from bicorn.observe.log import Logger, SafeAtoms, load_logger_class
from harness.logs import LogValues, Request, Response, environ

LINE = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] "


def to_files(directory: Path, **changes: Any) -> LogValues:
    return LogValues(errorlog=str(directory / "error.log"), accesslog=str(directory / "access.log"), **changes)


def write_access(log: Logger, **changes: str) -> None:
    log.access(Response(), Request(), environ(**changes), timedelta(milliseconds=5))


def test_error_lines_have_gunicorns_shape(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    log.info("Listening at: %s (%s)", "http://127.0.0.1:8000", 17)
    expected = f"[{os.getpid()}] [INFO] Listening at: http://127.0.0.1:8000 (17)\n"
    assert (tmp_path / "error.log").read_text().endswith(expected)


@pytest.mark.parametrize("name", ["debug", "info", "warning", "error", "critical"])
def test_each_level_hides_what_is_below_it(name: str, tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path, loglevel=name.upper()))
    names = ["debug", "info", "warning", "error", "critical"]
    for each in names:
        getattr(log, each)("at %s", each)
    shown = (tmp_path / "error.log").read_text()
    assert [each for each in names if f"at {each}" in shown] == names[names.index(name) :]


def test_log_takes_a_level_by_name_or_number(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    log.log("WARNING", "by name")
    log.log(logging.ERROR, "by number")
    log.log("unheard", "as info")
    shown = (tmp_path / "error.log").read_text()
    assert "[WARNING] by name" in shown
    assert "[ERROR] by number" in shown
    assert "[INFO] as info" in shown


def test_exception_carries_the_traceback(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    try:
        raise ValueError("the cause")
    except ValueError:
        log.exception("Error handling request %s", "/x")
    shown = (tmp_path / "error.log").read_text()
    assert "[ERROR] Error handling request /x\nTraceback" in shown
    assert shown.endswith("ValueError: the cause\n")


def test_records_carry_extra_and_name_their_caller(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    log.error_log.addHandler(Keep())
    log.warning("counted", extra={"metric": "x", "value": 1, "mtype": "counter"})
    assert vars(records[0])["metric"] == "x"
    assert records[0].filename == Path(__file__).name
    assert records[0].funcName == "test_records_carry_extra_and_name_their_caller"


def test_a_dash_means_stderr_for_errors_and_stdout_for_access(capsys: pytest.CaptureFixture[str]) -> None:
    log = Logger(LogValues(errorlog="-", accesslog="-"))
    log.error("to stderr")
    write_access(log)
    out, err = capsys.readouterr()
    assert "to stderr" in err and "to stderr" not in out
    assert '"GET /shop/caf%C3%A9?q=1 HTTP/1.1" 200 12' in out


def test_no_accesslog_means_no_access_line(tmp_path: Path) -> None:
    log = Logger(LogValues(errorlog=str(tmp_path / "error.log")))
    assert not log.access_log_enabled
    write_access(log)
    assert (tmp_path / "error.log").read_text() == ""


@pytest.mark.parametrize(
    ("changes", "enabled"),
    [
        ({}, False),
        ({"accesslog": "-"}, True),
        ({"syslog": True, "syslog_addr": "udp://127.0.0.1:9"}, True),
        ({"syslog": True, "syslog_addr": "udp://127.0.0.1:9", "disable_redirect_access_to_syslog": True}, False),
        ({"logconfig_dict": {"version": 1}}, True),
    ],
)
def test_what_turns_the_access_log_on(changes: dict[str, Any], enabled: bool) -> None:
    assert Logger(LogValues(**changes)).access_log_enabled is enabled


def test_a_client_cannot_write_a_line_of_its_own(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    write_access(
        log, HTTP_USER_AGENT='x"\n127.0.0.1 - - "GET /forged HTTP/1.1" 200', HTTP_REFERER="\\", RAW_URI="/\r\x1b[2J"
    )
    lines = (tmp_path / "access.log").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(
        r'"GET /\x0d\x1b[2J HTTP/1.1" 200 12 "\\" "x\"\x0a127.0.0.1 - - \"GET /forged HTTP/1.1\" 200"'
    )


def test_filters_and_formatters_read_atoms_from_the_record(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    seen: list[Any] = []

    def note(record: logging.LogRecord) -> bool:
        seen.append(record.args)
        return True

    log.access_log.addFilter(note)
    write_access(log)
    assert isinstance(seen[0], SafeAtoms)
    assert seen[0]["s"] == "200"
    assert seen[0]["{host}i"] == "example.com"


def test_an_atom_that_raises_costs_a_line_and_not_the_connection(tmp_path: Path) -> None:
    class Broken(Logger):
        def atoms(self, *args: Any) -> dict[str, Any]:
            raise KeyError("mine")

    log = Broken(to_files(tmp_path))
    write_access(log)
    assert "KeyError: 'mine'" in (tmp_path / "error.log").read_text()


def test_rotation_moves_on_to_a_new_file_and_loses_nothing(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    other = logging.FileHandler(tmp_path / "other.log")
    log.error_log.addHandler(other)
    log.info("one")
    for name in ("error.log", "access.log", "other.log"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    log.info("still the old file")
    log.reopen_files()
    log.info("two")
    write_access(log)
    assert "still the old file" in (tmp_path / "error.log.1").read_text()
    assert "two" in (tmp_path / "error.log").read_text() and "one" not in (tmp_path / "error.log").read_text()
    assert "GET" in (tmp_path / "access.log").read_text() and (tmp_path / "access.log.1").read_text() == ""
    assert "two" in (tmp_path / "other.log").read_text()


def test_rotation_under_fire_loses_no_record(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    before = signal.signal(signal.SIGUSR1, lambda *_: log.reopen_files())
    done = threading.Event()

    def rotate() -> None:
        turn = 0
        while not done.is_set() and turn < 200:
            turn += 1
            (tmp_path / "error.log").rename(tmp_path / f"error.log.{turn}")
            os.kill(os.getpid(), signal.SIGUSR1)
            appeared = threading.Event()
            while not (tmp_path / "error.log").exists() and not done.is_set():
                appeared.wait(0.001)

    thread = threading.Thread(target=rotate)
    try:
        thread.start()
        for number in range(5000):
            log.info("record %d.", number)
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    shown = "".join(path.read_text() for path in tmp_path.glob("error.log*"))
    assert len(list(tmp_path.glob("error.log*"))) > 1
    assert [number for number in range(5000) if f"record {number}." not in shown] == []


def test_a_file_that_cannot_be_opened_again_keeps_its_old_one(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    log = Logger(LogValues(errorlog=str(directory / "error.log")))
    directory.rename(tmp_path / "moved")
    log.reopen_files()
    log.info("still here")
    shown = (tmp_path / "moved" / "error.log").read_text()
    assert "Cannot reopen the log file" in shown
    assert "still here" in shown


def test_a_log_file_is_not_inherited(tmp_path: Path) -> None:
    log = Logger(to_files(tmp_path))
    handler = log.error_log.handlers[0]
    assert isinstance(handler, logging.FileHandler) and handler.stream is not None
    os.set_inheritable(handler.stream.fileno(), True)
    log.close_on_exec()
    assert not os.get_inheritable(handler.stream.fileno())
    log.reopen_files()
    assert not os.get_inheritable(handler.stream.fileno())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_log_file_belongs_to_the_workers_user_and_a_device_does_not(tmp_path: Path) -> None:
    Logger(to_files(tmp_path, uid=12345, gid=12346))
    owner = (tmp_path / "error.log").stat()
    assert (owner.st_uid, owner.st_gid) == (12345, 12346)
    Logger(LogValues(errorlog="/dev/null", uid=12345, gid=12346))
    device = os.stat("/dev/null")
    assert stat.S_ISCHR(device.st_mode) and device.st_uid == 0


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "error.log"
    with pytest.raises(ConfigError, match=r"no/error\.log.*No such file or directory.*errorlog"):
        Logger(LogValues(errorlog=str(missing)))


def test_new_settings_replace_the_old_handlers(tmp_path: Path) -> None:
    cfg = to_files(tmp_path)
    log = Logger(cfg)
    mine = logging.FileHandler(tmp_path / "mine.log")
    log.error_log.addHandler(mine)
    log.setup(replace(cfg, errorlog=str(tmp_path / "second.log"), loglevel="error"))
    log.info("not shown")
    log.error("shown once")
    assert (tmp_path / "error.log").read_text() == ""
    assert (tmp_path / "second.log").read_text().count("shown once") == 1
    assert "shown once" in (tmp_path / "mine.log").read_text()
    log.setup(cfg)
    assert len(log.error_log.handlers) == 2
    assert len(log.access_log.handlers) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"accesslog": "/nonexistent/directory/access.log"},
        {"access_log_format": "%(h)"},
        {"syslog": True, "syslog_addr": "nowhere"},
        {"syslog": True, "syslog_facility": "none"},
        {"logconfig": "/nonexistent.ini"},
        {"logconfig_json": "/nonexistent.json"},
        {"logconfig_dict": {"version": 1, "handlers": {"x": {"class": "no.such.Class"}}}},
        {"logconfig_dict": {"version": 7}},
    ],
)
def test_settings_that_fail_leave_the_previous_ones_in_force(bad: dict[str, Any], tmp_path: Path) -> None:
    cfg = to_files(tmp_path)
    log = Logger(cfg)
    with pytest.raises(ConfigError):
        log.setup(replace(cfg, errorlog=str(tmp_path / "never.log"), loglevel="critical", **bad))
    assert log.cfg is cfg
    log.info("as before")
    write_access(log)
    assert (tmp_path / "error.log").read_text().count("as before") == 1
    assert (tmp_path / "access.log").read_text().count("GET") == 1


def test_a_subclass_may_give_a_log_another_format(tmp_path: Path) -> None:
    class Terse(Logger):
        def setup(self, cfg: Any) -> None:
            super().setup(cfg)
            self._set_handler(self.error_log, cfg.errorlog, logging.Formatter("terse %(message)s"))

    cfg = to_files(tmp_path)
    log = Terse(cfg)
    log.setup(cfg)
    log.info("x")
    assert (tmp_path / "error.log").read_text() == "terse x\n"


def test_a_subclass_that_replaces_setup_still_knows_whether_access_is_logged() -> None:
    class Own(Logger):
        def setup(self, cfg: Any) -> None:
            self.cfg = cfg

    assert Own(LogValues(accesslog="-")).access_log_enabled


class Named(Logger):
    """A class that logger_class can name."""

    installed = 0

    @classmethod
    def install(cls) -> None:
        cls.installed += 1


@pytest.mark.parametrize("name", ["simple", "gunicorn.glogging.Logger", "bicorn.observe.log.Logger"])
def test_gunicorns_names_mean_our_class(name: str) -> None:
    assert load_logger_class(LogValues(logger_class=name)) is Logger


def test_logger_class_takes_a_class_and_a_dotted_name() -> None:
    assert load_logger_class(LogValues(logger_class=Named)) is Named
    assert Named.installed == 1
    assert load_logger_class(LogValues(logger_class="bicorn.observe.log.Logger")) is Logger


@pytest.mark.parametrize("name", ["nowhere.Logger", "logging.NoSuch", "Nope", "logging.INFO", "egg:nodist#x", 7])
def test_a_logger_class_that_cannot_be_loaded_is_named(name: Any) -> None:
    with pytest.raises(ConfigError, match="logger_class"):
        load_logger_class(LogValues(logger_class=name))
