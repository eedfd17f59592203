"""The command line, and the two environment variables that are read like one.

Owns       the argparse parser, made from the declarations.
Never      converts a value beyond what argparse refuses with exit code 2; the declaration does the rest.
Invariant  a flag that was not given leaves no value, so it cannot hide a configuration file's.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bicorn import __version__
from bicorn.config.setting import Absent, Setting
from bicorn.config.sources import Given, Layer, Source
from bicorn.config.spelling import nearest
from bicorn.errors import ConfigError

USAGE = "%(prog)s [OPTIONS] [APP_MODULE]"
DESCRIPTION = (
    "Serve the WSGI or ASGI application APP_MODULE: MODULE:NAME (run:app), or MODULE:FACTORY(). Without it, wsgi_app "
    "in the configuration file names it."
)


#: Units that a number of does not make plain; what other settings count stands in their sentences.
MEASURES = ("seconds", "milliseconds", "bytes")


@dataclass(frozen=True)
class Parsed:
    """What one command line said."""

    given: list[Given]
    positional: list[str]

    def value_of(self, name: str) -> Given | None:
        """Find what was given for a setting."""
        return next((given for given in self.given if given.name == name), None)


class Parser(argparse.ArgumentParser):
    """argparse, with errors that name the variable and abbreviations that stay what they are in Gunicorn."""

    def __init__(self, prog: str, variable: str | None, ours: frozenset[str]) -> None:
        super().__init__(prog=prog, usage=USAGE, description=DESCRIPTION)
        self._variable = variable
        self._ours = ours

    def error(self, message: str) -> NoReturn:
        """End with exit code 2, saying in which variable the fault is."""
        super().error(message if self._variable is None else f"in {self._variable}: {message}")

    def _get_option_tuples(self, option_string: str) -> list[Any]:  # Any: argparse's own, private tuples
        # A flag of ours must not make an abbreviation ambiguous that Gunicorn's users type (`--header`, since
        # there is --header-timeout beside --header-map). argparse has no public place for such a rule.
        matches = super()._get_option_tuples(option_string)
        theirs = [match for match in matches if match[0].dest not in self._ours]
        return theirs or matches


def make_parser(declarations: Mapping[str, Setting[Any]], prog: str, variable: str | None = None) -> Parser:
    """Make the parser of all declarations that have a flag."""
    parser = Parser(prog, variable, frozenset(name for name, setting in declarations.items() if setting.ours))
    parser.add_argument(
        "-v",
        "--version",
        action="version",
        default=argparse.SUPPRESS,
        version=f"%(prog)s (version {__version__})\n",
        help="show program's version number and exit",
    )
    parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
    for setting in declarations.values():
        if setting.cli:
            parser.add_argument(*setting.cli, **_keywords(setting))
    return parser


def _keywords(setting: Setting[Any]) -> dict[str, Any]:  # Any: add_argument's keywords have many types
    kind = setting.kind
    keywords: dict[str, Any] = {"dest": setting.name, "action": kind.action, "default": None, "help": _help(setting)}
    if kind.action in ("store", "append"):
        keywords["type"] = kind.from_text
        keywords["metavar"] = kind.metavar
    if kind.values == "optional":
        keywords["nargs"] = "?"
    if kind.alone is not None:
        keywords["const"] = kind.alone
    return keywords


def _help(setting: Setting[Any]) -> str:
    first = setting.doc.split(". ")[0].rstrip(".")
    missing = "" if setting.absent is None else _missing(setting.absent)
    unit = f" {setting.unit}" if setting.unit is not None and setting.unit.startswith(MEASURES) else ""
    return f"{first}{missing} [{setting.default_text or f'{setting.default()}{unit}'}]".replace("%", "%%")


def _missing(absent: Absent) -> str:
    classes = sorted(name for name in absent.classes if "." not in name)
    return f" (only with -k {', '.join(classes)})" if classes else " (not in this version)"


def parse(
    arguments: Sequence[str], declarations: Mapping[str, Setting[Any]], prog: str, layer: Layer, variable: str | None
) -> Parsed:
    """Parse arguments; raises SystemExit as argparse does, for --help, --version and usage errors."""
    parser = make_parser(declarations, prog, variable)
    namespace, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown[0], declarations)}")
    spoken = vars(namespace)
    positional = spoken.pop("args")
    suffix = "" if variable is None else f" in {variable}"
    given = [
        Given(name, raw, Source(layer, f"{declarations[name].flag}{suffix}"))
        for name, raw in spoken.items()
        if raw is not None
    ]
    return Parsed(given, positional)


def _meant(unknown: str, declarations: Mapping[str, Setting[Any]]) -> str:
    flags = [flag for setting in declarations.values() for flag in setting.cli if flag.startswith("--")]
    meant = nearest(unknown.partition("=")[0], flags)
    return f" (did you mean {meant}?)" if meant is not None else ""


def parse_variable(
    variable: str, environ: Mapping[str, str], declarations: Mapping[str, Setting[Any]], prog: str, layer: Layer
) -> Parsed:
    """Parse what an environment variable holds, split as a shell would."""
    try:
        arguments = shlex.split(environ.get(variable, ""))
    except ValueError as error:
        raise ConfigError(
            f"{variable} = {environ[variable]!r} (environment variable {variable}) cannot be split into "
            f"arguments: {error}; quote it as for a shell"
        ) from None
    return parse(arguments, declarations, prog, layer, variable)
