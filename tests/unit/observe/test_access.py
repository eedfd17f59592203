"""Who may write access lines: natively only when nobody would miss a record."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bicorn.observe.access import NativeTarget, native_target
from bicorn.observe.log import Logger
from harness.logs import DEFAULT_FORMAT, LogValues


def test_a_file_may_be_written_natively(tmp_path: Path) -> None:
    path = str(tmp_path / "access.log")
    cfg = LogValues(accesslog=path)
    log = Logger(cfg)
    handler = log.access_log.handlers[0]
    assert isinstance(handler, logging.FileHandler) and handler.stream is not None
    assert native_target(log, cfg) == NativeTarget(handler.stream.fileno(), path, DEFAULT_FORMAT)


def test_a_relative_name_is_of_the_directory_in_which_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = LogValues(accesslog="access.log")
    log = Logger(cfg)
    monkeypatch.chdir("/")  # As an application may, while it is loaded.
    target = native_target(log, cfg)
    assert target is not None and target.path == str(tmp_path / "access.log")


def test_standard_output_may_be_written_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)  # pytest puts its own in place
    cfg = LogValues(accesslog="-")
    assert sys.__stdout__ is not None
    assert native_target(Logger(cfg), cfg) == NativeTarget(sys.__stdout__.fileno(), None, DEFAULT_FORMAT)


def test_a_replaced_standard_output_is_written_by_python() -> None:
    cfg = LogValues(accesslog="-")
    assert sys.stdout is not sys.__stdout__
    assert native_target(Logger(cfg), cfg) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"accesslog": None},
        {"logconfig_dict": {"version": 1}},
        {"syslog": True, "syslog_addr": "udp://127.0.0.1:9"},
        {"access_log_format": "%(h)-20s %(unknown)s"},
    ],
)
def test_these_settings_need_python(changes: dict[str, Any], tmp_path: Path) -> None:
    cfg = LogValues(**{"accesslog": str(tmp_path / "access.log"), **changes})
    assert native_target(Logger(cfg), cfg) is None


def test_syslog_of_errors_alone_does_not(tmp_path: Path) -> None:
    cfg = LogValues(
        accesslog=str(tmp_path / "access.log"),
        syslog=True,
        syslog_addr="udp://127.0.0.1:9",
        disable_redirect_access_to_syslog=True,
    )
    assert native_target(Logger(cfg), cfg) is not None


class Subclass(Logger):
    """Even one that changes nothing may be asked for its records."""


def test_a_logger_class_of_the_users_needs_python(tmp_path: Path) -> None:
    cfg = LogValues(accesslog=str(tmp_path / "access.log"))
    assert native_target(Subclass(cfg), cfg) is None
    assert native_target(object(), cfg) is None


class Adapter(logging.Formatter):
    """A formatter that is not the one settings made."""


TOUCHES: list[Callable[[Logger], object]] = [
    lambda log: log.access_log.addHandler(logging.NullHandler()),
    lambda log: log.access_log.addFilter(lambda record: True),
    lambda log: log.access_log.handlers[0].addFilter(lambda record: True),
    lambda log: log.access_log.handlers[0].setFormatter(Adapter()),
    lambda log: log.access_log.handlers[0].setFormatter(logging.Formatter("access: %(message)s")),
    lambda log: log.access_log.handlers[0].setFormatter(None),
    lambda log: log.access_log.handlers[0].setLevel(logging.ERROR),
    lambda log: log.access_log.setLevel(logging.ERROR),
    lambda log: log._set_handler(log.access_log, None, logging.Formatter()),
    lambda log: setattr(log.access_log, "propagate", True),
    lambda log: setattr(log.access_log, "disabled", True),
    lambda log: setattr(log, "access", print),
    lambda log: setattr(log, "atoms_wrapper_class", dict),
    lambda log: setattr(log, "access_log", logging.getLogger("mine")),
    lambda log: log._set_handler(log.access_log, "/dev/null", logging.Formatter("%(asctime)s %(message)s")),
]


@pytest.mark.parametrize("touch", TOUCHES)
def test_anything_that_would_see_or_change_a_record_needs_python(
    touch: Callable[[Logger], object], tmp_path: Path
) -> None:
    cfg = LogValues(accesslog=str(tmp_path / "access.log"))
    log = Logger(cfg)
    touch(log)
    assert native_target(log, cfg) is None


def test_a_class_that_somebody_patched_needs_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = LogValues(accesslog=str(tmp_path / "access.log"))
    log = Logger(cfg)
    monkeypatch.setattr(Logger, "access", lambda *args: None)
    assert native_target(log, cfg) is None
