"""From a command line and an environment to settings.

Owns       the precedence: defaults, environment, file, GUNICORN_CMD_ARGS, BICORN_CMD_ARGS, command line.
Never      keeps anything between two calls: a reload is a whole new load.
Invariant  the result passed all checks, and every value knows its source.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bicorn.config import checks, command_line, config_file, paste
from bicorn.config.config_file import Warn
from bicorn.config.setting import Setting
from bicorn.config.settings import Settings
from bicorn.config.sources import DEFAULT, Given, Layer, Source
from bicorn.config.values import current_directory


def print_warning(message: str) -> None:
    """Write a warning where it is seen before there is a log."""
    print(f"Warning: {message}", file=sys.stderr, flush=True)


def load_settings(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    prog: str = "bicorn",
    cwd: str | None = None,
    warn: Warn = print_warning,
    given: Iterable[Given] = (),
    settings_class: type[Settings] = Settings,
) -> Settings:
    """Load the settings of a server.

    `argv` comes without the name of the program. `cwd` is the directory in which the server was started: at a reload
    the process may have changed to `chdir`, and relative paths still count from the start. That directory is put
    on sys.path, since a configuration file imports from its project. `given` is what a program that embeds the server
    chose: above the environment's defaults, below everything that a person wrote. `settings_class` may declare more.

    Raises ConfigError; SystemExit from argparse (usage errors, --help, --version); whatever exits in a file.
    """
    with _working_directory(cwd or current_directory()):
        return _load(argv, environ, prog, warn, given, settings_class)


def default_values(
    environ: Mapping[str, str], settings_class: type[Settings] = Settings
) -> tuple[dict[str, object], dict[str, Source]]:
    """Give the values and sources that are there before anybody wrote anything: defaults and the environment's."""
    settings = _resolve(_from_environment(environ, settings_class.declarations()), environ, None, settings_class)
    return dict(settings.values), dict(settings.sources)


def _load(
    argv: Sequence[str],
    environ: Mapping[str, str],
    prog: str,
    warn: Warn,
    chosen: Iterable[Given],
    settings_class: type[Settings],
) -> Settings:
    declarations = settings_class.declarations()
    typed = command_line.parse(argv, declarations, prog, Layer.COMMAND_LINE, None)
    theirs, ours = (
        command_line.parse_variable(layer.name, environ, declarations, prog, layer)
        for layer in (Layer.GUNICORN_CMD_ARGS, Layer.BICORN_CMD_ARGS)
    )
    app = typed.positional[0] if typed.positional else None
    location = config_file.locate(parsed.value_of("config") for parsed in (typed, ours, theirs))

    given = [*_from_environment(environ, declarations), *_from_app(app), *chosen]
    if location is not None:
        given.append(Given("config", location.text, location.source))
        given += config_file.read(location, declarations, warn)
    given += [*theirs.given, *ours.given, *typed.given]
    given = [paste.absolute(item) if item.name == "paste" else item for item in given]
    given = [*_from_paste(given), *given]

    settings = _resolve(given, environ, app, settings_class)
    for message in _remarks(settings, typed, theirs, ours):
        warn(message)
    checks.check(settings)
    return settings


def _from_environment(environ: Mapping[str, str], declarations: Mapping[str, Setting[Any]]) -> Iterator[Given]:
    for name, declaration in declarations.items():
        default = declaration.environment
        text = environ.get(default.variable) if default is not None else None
        if default is None or text is None or (text == "" and default.empty_is_unset):
            continue
        source = Source(Layer.ENVIRONMENT, f"environment variable {default.variable}")
        yield Given(name, default.convert(text), source)


def _from_app(app: str | None) -> Iterator[Given]:
    if app is not None:
        yield Given("default_proc_name", app, Source(Layer.ENVIRONMENT, "application on the command line"))


def _from_paste(given: Iterable[Given]) -> Iterator[Given]:
    """Give what the PasteDeploy file that wins says about the server; everything else that was given stands above."""
    files = [item.raw for item in given if item.name == "paste"]
    if files and isinstance(files[-1], str):
        yield from paste.settings_of(files[-1])


def _resolve(
    given: Iterable[Given], environ: Mapping[str, str], app: str | None, settings_class: type[Settings]
) -> Settings:
    """Apply the layers: convert every value that was given, even one that a later layer hides."""
    declarations = settings_class.declarations()
    values: dict[str, object] = {name: declaration.default() for name, declaration in declarations.items()}
    sources = dict.fromkeys(declarations, DEFAULT)
    for item in given:
        declaration = declarations[item.name]
        if item.raw is None and declaration.kind.none_is_default:
            continue
        values[item.name] = declaration.read(item.raw, item.source)
        note = declaration.kind.annotate(item.raw)
        sources[item.name] = item.source.noted(note) if note is not None else item.source
    if values["proc_name"] is None:
        values["proc_name"] = values["default_proc_name"]
    return _with_known_log_level(settings_class.made(values, sources, environ, app))


def _with_known_log_level(settings: Settings) -> Settings:
    """Turn a log level that does not exist into info, as Gunicorn does; the remark about it says so."""
    if settings.loglevel.lower() in checks.LOG_LEVELS:
        return settings
    sources = {**settings.sources, "loglevel": settings.source_of("loglevel").noted(f"was {settings.loglevel!r}")}
    values = {**settings.values, "loglevel": "info"}
    return settings.made(values, sources, settings.env_orig, settings.app_argument)


def _remarks(
    settings: Settings, typed: command_line.Parsed, theirs: command_line.Parsed, ours: command_line.Parsed
) -> Iterator[str]:
    source = settings.source_of("loglevel")
    if source.note is not None:
        yield f"loglevel ({source.place}) {source.note}, none of {', '.join(checks.LOG_LEVELS)}; info is used"
    for extra in typed.positional[1:]:
        yield f"{extra!r} on the command line has no effect: {typed.positional[0]!r} is the application"
    for variable, parsed in (("GUNICORN_CMD_ARGS", theirs), ("BICORN_CMD_ARGS", ours)):
        for extra in parsed.positional:
            yield f"{extra!r} in {variable} has no effect: the command line or wsgi_app names the application"


@contextmanager
def _working_directory(path: str) -> Iterator[None]:
    if path not in sys.path:
        sys.path.insert(0, path)
    try:
        before = os.getcwd()
    except FileNotFoundError:
        before = path  # The directory of the last release is gone; the start directory is still there to go to.
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
