"""logconfig, logconfig_json and logconfig_dict: precedence, defaults, errors."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bicorn.errors import ConfigError
from bicorn.observe.log import CONFIG_DEFAULTS, Logger
from harness.logs import LogValues

INI = """
[loggers]
keys=root,gunicorn.error

[handlers]
keys=file

[formatters]
keys=short

[logger_root]
level=WARNING
handlers=file

[logger_gunicorn.error]
level=INFO
handlers=file
propagate=0
qualname=gunicorn.error

[handler_file]
class=FileHandler
formatter=short
args=('%(here)s/ini.log',)

[formatter_short]
format=ini %(message)s
"""


def to_file(path: Path, text: str) -> dict[str, Any]:
    return {
        "version": 1,
        "handlers": {"console": {"class": "logging.FileHandler", "filename": str(path), "formatter": "mine"}},
        "formatters": {"mine": {"format": f"{text} %(message)s"}},
        "root": {"level": "INFO", "handlers": ["console"]},
        "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["console"], "propagate": False}},
    }


def sources(directory: Path) -> dict[str, Any]:
    (directory / "log.ini").write_text(INI)
    (directory / "log.json").write_text(json.dumps(to_file(directory / "json.log", "json")))
    return {
        "logconfig": str(directory / "log.ini"),
        "logconfig_json": str(directory / "log.json"),
        "logconfig_dict": to_file(directory / "dict.log", "dict"),
    }


@pytest.mark.parametrize(
    ("given", "winner"),
    [
        (("logconfig",), "ini"),
        (("logconfig_json",), "json"),
        (("logconfig_dict",), "dict"),
        (("logconfig", "logconfig_json"), "json"),
        (("logconfig", "logconfig_json", "logconfig_dict"), "dict"),
    ],
)
def test_dict_wins_over_json_over_ini(given: tuple[str, ...], winner: str, tmp_path: Path) -> None:
    every = sources(tmp_path)
    log = Logger(LogValues(**{name: every[name] for name in given}))
    log.info("hello")
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.log")} == {winner: f"{winner} hello\n"}


def test_a_dict_is_laid_over_the_defaults_by_its_top_level_keys(capsys: pytest.CaptureFixture[str]) -> None:
    log = Logger(LogValues(logconfig_dict={"formatters": {"generic": {"format": "mine %(message)s"}}}))
    log.info("hello")
    out, err = capsys.readouterr()
    # Both loggers propagate by default, so that the root's console shows the line too: Gunicorn's defaults, kept.
    assert (out, err) == ("mine hello\n", "mine hello\n")


def test_the_defaults_and_the_users_dict_are_not_changed_by_use(tmp_path: Path) -> None:
    given = {"loggers": {"x": {"level": "INFO"}}}
    before = json.dumps([CONFIG_DEFAULTS, given])
    Logger(LogValues(logconfig_dict=given))
    assert json.dumps([CONFIG_DEFAULTS, given]) == before


def test_objects_in_a_dict_reach_dictconfig_as_they_are(tmp_path: Path) -> None:
    class Held:
        def __deepcopy__(self, memo: object) -> Held:
            raise AssertionError("copied")

        def __call__(self) -> logging.Filter:
            return logging.Filter()

    Logger(LogValues(logconfig_dict={"filters": {"mine": {"()": Held()}}}))


def test_taking_the_logconfig_away_at_a_reload_restores_plain_handlers(tmp_path: Path) -> None:
    plain = LogValues(errorlog=str(tmp_path / "plain.log"))
    log = Logger(replace(plain, logconfig_dict=to_file(tmp_path / "dict.log", "dict")))
    log.info("one")
    log.setup(plain)
    log.info("two")
    assert (tmp_path / "dict.log").read_text() == "dict one\n"
    assert (tmp_path / "plain.log").read_text().endswith("[INFO] two\n")


def test_a_broken_logconfig_at_a_reload_keeps_the_previous_logconfig(tmp_path: Path) -> None:
    cfg = LogValues(logconfig_dict=to_file(tmp_path / "dict.log", "dict"))
    log = Logger(cfg)
    with pytest.raises(ConfigError):
        log.setup(replace(cfg, logconfig_dict={"handlers": {"console": {"class": "no.Class"}}}))
    log.info("as before")
    assert (tmp_path / "dict.log").read_text() == "dict as before\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.json", None, "cannot read"),
        ("x.json", "{", "is not JSON"),
        ("x.json", "[]", "holds list"),
        ("x.json", '{"handlers": {"h": {"class": "no.Class"}}}', "handler 'h'.*No module named 'no'"),
        ("x.ini", None, "there is no file"),
        ("x.ini", "[loggers]\nkeys=root\n", "logger_root|handlers|formatters"),
        ("x.ini", "nonsense", "no section headers"),
    ],
)
def test_errors_name_the_setting_and_the_place(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    setting = "logconfig_json" if name.endswith("json") else "logconfig"
    given: dict[str, Any] = {setting: str(file)}
    with pytest.raises(ConfigError, match=f"{setting}.*(?:{said})"):
        Logger(LogValues(**given))
