"""Every setting of the real Gunicorn beside ours: name, flags, default, what is accepted, and what it becomes.

docs/differences.md is the list of exceptions, and is itself checked: a row that no longer holds fails.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gunicorn.config
import pytest

from bicorn.config import Settings
from bicorn.config.command_line import make_parser
from bicorn.config.kind import Invalid

DIFFERENCES: Final = (Path(__file__).parents[2] / "docs" / "differences.md").read_text(encoding="utf-8")

# Source text, so that docs/differences.md can name a value as it is written.
VALUES: Final = [
    *("None", "True", "False", "0", "1", "-1", "5", "2.5", "16383", "2**31", "[]", '["a"]', '["a", "b"]', '("a", "b")'),
    *('["*"]', '["10.0.0.0/8"]', "[None]", "[1]", "{}", '{"a": 1}', '{"a"}', 'b"x"', "dict", "print"),
    *('""', '"5"', '"0x10"', '"010"', '" 7 "', '"-3"', '"abc"', '" abc "', '"true"', '"False"', '"yes"', '"auto"'),
    *('"AUTO"', '"off"', '"none"', '"v1"', '"h1"', '"h1,h2"', '"h2, h1"', '"h1,h1"', '"both"', '"upgrade"', '"Drop"'),
    *('"refuse"', '"poll"', '"inotify"', '"watchfiles"', '"uwsgi"', '"uvloop"', '"fast"', '"a,b"', '"a, b,"', '"*"'),
    *('"127.0.0.1"', '"10.0.0.0/8"', '"10.0.0.1/8"', '"/"', '"/nonexistent"', '"root"', '"no such name"', '"16384"'),
    *('"localhost:8125"', '"unix:///tmp/s"', '"unix:1234"', '"os.path.join"', '"os.nope"', '"no_module.x"'),
    *("lambda: None", "lambda: dict", "lambda a: None", "lambda a, b: None", "lambda a, b, c: None"),
    *("lambda a, b, c, d: None", "lambda *args: None", "lambda a, b=None: None", "lambda a, *, b: None"),
    "functools.partial(print)",
]
TEXTS: Final = [
    "5",
    "05",
    "0x10",
    "-1",
    "2.5",
    "abc",
    "",
    "true",
    "auto",
    "v1",
    "h1,h2",
    "root",
    "/",
    "10.0.0.0/8",
    "Drop",
]

GUNICORN: Final = {declaration.name: declaration for declaration in gunicorn.config.KNOWN_SETTINGS}


class Refused:
    """The outcome of a value that is not allowed."""

    def __repr__(self) -> str:
        return "refused"


REFUSED: Final = Refused()


# --- docs/differences.md ---------------------------------------------------------------------------------------


def table(title: str) -> list[list[str]]:
    """Give the rows of the table under a title of docs/differences.md."""
    section = DIFFERENCES.split(f"### {title}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def quoted(cell: str) -> list[str]:
    """Give what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


@dataclass
class Row:
    """A row of the table of values."""

    settings: str
    values: str
    theirs: str
    ours: str
    used: bool = False

    def explains(self, name: str, value: str, theirs: object, ours: object) -> bool:
        """Say if this row foresees such a difference."""
        return (
            self._is_about(name)
            and (value in quoted(self.values) or (self.values == "any string" and value.startswith('"')))
            and agrees(self.theirs, theirs, name)
            and agrees(self.ours, ours, name)
        )

    def _is_about(self, name: str) -> bool:
        if self.settings == "every bool":
            return GUNICORN[name].validator is gunicorn.config.validate_bool
        if self.settings == "every hook":
            return "Hooks" in str(GUNICORN[name].section)
        return name in quoted(self.settings)


def agrees(cell: str, outcome: object, name: str) -> bool:
    """Say if the outcome is what a cell of the table says."""
    if cell == "refused":
        return outcome is REFUSED
    if cell == "accepted":
        return outcome is not REFUSED
    if cell == "the default":
        return bool(outcome == Settings.declarations()[name].default())
    return bool(outcome == ast.literal_eval(quoted(cell)[0]))


# --- both sides ------------------------------------------------------------------------------------------------


def theirs(name: str, value: object) -> object:
    """Give what the real Gunicorn makes of a value."""
    setting = GUNICORN[name]()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            setting.set(value)
        except Exception:  # noqa: BLE001  # whatever Gunicorn raises is a refusal
            return REFUSED
    return setting.get()


def ours(name: str, value: object) -> object:
    """Give what we make of a value."""
    declaration = Settings.declarations()[name]
    if value is None and declaration.kind.none_is_default:
        return declaration.default()
    try:
        return declaration.kind.parse(value)
    except Invalid:
        return REFUSED


def same(one: object, other: object) -> bool:
    """Say if two outcomes are the same to who uses them."""
    if callable(one) and callable(other):
        return True  # A hook may be wrapped to take more arguments.
    return bool(one == other) and (type(one) is type(other) or isinstance(one, int))


# --- the table -------------------------------------------------------------------------------------------------


def test_no_setting_of_gunicorn_is_missing() -> None:
    assert len(GUNICORN) == 120
    assert GUNICORN.keys() <= Settings.declarations().keys()


def test_what_is_not_gunicorns_is_marked_as_ours() -> None:
    declarations = Settings.declarations()
    assert {name for name in declarations if declarations[name].ours} == declarations.keys() - GUNICORN.keys()


@pytest.mark.parametrize("name", GUNICORN)
def test_flags_and_section_are_gunicorns(name: str) -> None:
    declaration = Settings.declarations()[name]
    assert list(declaration.cli) == (GUNICORN[name].cli or [])
    assert declaration.section == GUNICORN[name].section


@pytest.mark.parametrize("name", GUNICORN)
def test_the_default_is_gunicorns_or_listed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default, their_default = Settings.declarations()[name].default(), GUNICORN[name]().get()
    listed = {quoted(row[0])[0]: row for row in table("Defaults")}
    if name in listed:
        _, theirs_listed, ours_listed, _ = listed[name]
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        if isinstance(their_default, str):
            their_default = their_default.replace(os.path.expanduser("~"), "~")
        assert their_default == ast.literal_eval(quoted(theirs_listed)[0])
        assert default == ast.literal_eval(quoted(ours_listed)[0])
        assert default != their_default
    else:
        assert same(default, their_default)


def observed_differences() -> Iterator[tuple[str, str, object, object]]:
    """Try every value on every setting, and yield where the two disagree."""
    namespace = {"functools": functools}
    for name in GUNICORN:
        for text in VALUES:
            value = eval(text, namespace)
            there, here = theirs(name, value), ours(name, value)
            if not same(there, here):
                yield name, text, there, here


def test_values_are_read_as_gunicorn_reads_them_or_listed() -> None:
    rows = [Row(settings, texts, there, here) for settings, texts, there, here, _why in table("Values")]
    unexplained = []
    for difference in observed_differences():
        explaining = [row for row in rows if row.explains(*difference)]
        for row in explaining:
            row.used = True
        if not explaining:
            unexplained.append(difference)
    assert not unexplained, "differs from Gunicorn, and docs/differences.md does not say so"
    assert not [row for row in rows if not row.used], "docs/differences.md lists what does not differ"


def test_absent_features_are_listed() -> None:
    listed = {(feature, name) for feature, names in table("Not there yet") for name in quoted(names)}
    declared = {
        (declaration.absent.feature, name)
        for name, declaration in Settings.declarations().items()
        if declaration.absent is not None
    }
    assert listed == declared


# --- the command line ------------------------------------------------------------------------------------------


def parsed(parser: Any, arguments: list[str]) -> object:
    """Give what a parser made of arguments, or the exit code."""
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
        except SystemExit as exit_:
            return exit_.code


@pytest.fixture(scope="module")
def parsers() -> tuple[Any, Any]:
    return gunicorn.config.Config(prog="x").parser(), make_parser(Settings.declarations(), "x")


FLAGS: Final = [(name, flag) for name, declaration in GUNICORN.items() for flag in declaration.cli or ()]


@pytest.mark.parametrize(("name", "flag"), FLAGS)
def test_a_flag_reads_its_text_as_gunicorns_does(name: str, flag: str, parsers: tuple[Any, Any]) -> None:
    for arguments in [[flag], *([flag, text] for text in TEXTS), [flag, "5", flag, "6", "app:app"]]:
        there, here = (parsed(parser, arguments) for parser in parsers)
        assert here == there or (name, arguments[1:]) == ("workers", ["auto"])


@pytest.mark.parametrize("flag", [flag for _, flag in FLAGS if flag.startswith("--")])
def test_an_abbreviation_means_what_it_means_in_gunicorn(flag: str, parsers: tuple[Any, Any]) -> None:
    for length in range(3, len(flag)):
        for arguments in ([flag[:length]], [flag[:length], "5"]):
            there, here = (parsed(parser, arguments) for parser in parsers)
            assert here == there or there == 2


# --- precedence ------------------------------------------------------------------------------------------------

READ_THEIRS: Final = """
import json, sys
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.config import KNOWN_SETTINGS
app = WSGIApplication("%(prog)s")
resolved = {"sendfile", "proc_name"}
value = lambda name: getattr(app.cfg, name) if name in resolved else app.cfg.settings[name].get()
print(json.dumps({s.name: repr(value(s.name)) for s in KNOWN_SETTINGS} | {"app": app.app_uri}))
"""
READ_OURS: Final = """
import json, os, sys
from bicorn.config import load_settings
settings = load_settings(sys.argv[1:], os.environ)
print(json.dumps({name: repr(value) for name, value in settings.values.items()} | {"app": settings.app_uri}))
"""


def resolve(script: str, folder: Path, arguments: list[str], variables: dict[str, str]) -> dict[str, str]:
    """Load a configuration in a process of its own, as Gunicorn reads its environment when it is imported."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


FILE: Final = "workers = 3\ntimeout = 11\nbind = '0.0.0.0:1'\nloglevel = 'debug'\nraw_env = ['A=1']\n"

PRECEDENCE: Final[dict[str, tuple[dict[str, str], list[str], dict[str, str]]]] = {
    "nothing given": ({}, [], {}),
    "environment defaults": (
        {},
        [],
        {"PORT": "81", "WEB_CONCURRENCY": "9", "FORWARDED_ALLOW_IPS": "*", "SENDFILE": "0"},
    ),
    "the usual file": ({"gunicorn.conf.py": FILE}, [], {"WEB_CONCURRENCY": "9", "PORT": "81"}),
    "a named file hides the usual one": (
        {"gunicorn.conf.py": "backlog = 5", "other-cfg.py": FILE},
        ["-c", "other-cfg.py"],
        {},
    ),
    "file: and a path": ({"other-cfg.py": FILE}, ["-c", "file:./other-cfg.py"], {}),
    "python: and a module": ({"settings_module.py": FILE}, ["-c", "python:settings_module"], {}),
    "a file named by the variable": ({"a.py": FILE}, [], {"GUNICORN_CMD_ARGS": "-c a.py"}),
    "the command line's file hides the variable's": (
        {"a.py": FILE, "b.py": "backlog = 7"},
        ["--config", "b.py"],
        {"GUNICORN_CMD_ARGS": "-c a.py"},
    ),
    "all layers": (
        {"gunicorn.conf.py": FILE},
        ["-t", "33", "--max-requests-j", "2"],
        {"GUNICORN_CMD_ARGS": "--workers=5 -t 22 --name 'two words'", "WEB_CONCURRENCY": "9"},
    ),
    "lists are replaced and not joined": (
        {"gunicorn.conf.py": FILE},
        ["-b", ":2", "-b", ":3"],
        {"GUNICORN_CMD_ARGS": "-e B=2 -b :9"},
    ),
    "an application in the variable is nothing": ({}, [], {"GUNICORN_CMD_ARGS": "wrong:app -w 2"}),
    "an application in the file": ({"gunicorn.conf.py": "wsgi_app = 'x:y'"}, [], {}),
    "a process name from each side": ({"gunicorn.conf.py": "default_proc_name = 'd'"}, ["-n", "n"], {}),
    "chdir": ({"sub/gunicorn.conf.py": "backlog = 1", "gunicorn.conf.py": "backlog = 2"}, ["--chdir", "sub"], {}),
    "a file that imports its neighbour": (
        {"gunicorn.conf.py": "from base import *\ntimeout += 1", "base.py": FILE},
        [],
        {},
    ),
    "odd texts": ({"gunicorn.conf.py": "workers = '0x2'\nreload = ' True '\nbacklog = True"}, ["-m", "022"], {}),
    "an empty flag": ({"gunicorn.conf.py": FILE}, ["-c", ""], {}),
}


@pytest.mark.parametrize("case", PRECEDENCE)
def test_sources_win_over_each_other_as_in_gunicorn(case: str, tmp_path: Path) -> None:
    files, arguments, variables = PRECEDENCE[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    app = [] if "wsgi_app" in files.get("gunicorn.conf.py", "") else ["run:app"]
    there = resolve(READ_THEIRS, tmp_path, [*arguments, *app], variables)
    here = resolve(READ_OURS, tmp_path, [*arguments, *app], variables)
    listed = {quoted(row[0])[0] for row in table("Defaults")} - {"sendfile", "default_proc_name"}
    if app == []:
        listed |= {"default_proc_name", "proc_name"}  # the name of the program, since no application was named
    # Hooks have other addresses in each process, and numbers of the ssl module other names there.
    listed |= {name for name in there if "function" in there[name]} | {"ssl_version", "cert_reqs"}
    assert {name: here[name] for name in there.keys() - listed} == {name: there[name] for name in there.keys() - listed}
