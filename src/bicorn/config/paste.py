"""What the setting `paste` names: a PasteDeploy file, and perhaps a section of it.

Owns       the place of the file, and what the server itself takes from it.
Never      loads an application: app.paste does.
Invariant  the path is absolute, because the process changes to `chdir` before the application is loaded.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator

from bicorn.config.sources import Given, Layer, Source
from bicorn.errors import ConfigError


def absolute(given: Given) -> Given:
    """Give the same with an absolute path; raise ConfigError if there is no such file."""
    if not isinstance(given.raw, str):
        return given
    path, hash_sign, section = given.raw.partition("#")
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise ConfigError(f"paste = {given.raw!r} ({given.source}) is not allowed: there is no file {path!r}")
    return Given(given.name, path + hash_sign + section, given.source)


def settings_of(paste: str) -> Iterator[Given]:
    """Give what such a file says about the server: its name, and its logging if it has a section for that."""
    path = paste.partition("#")[0]
    source = Source(Layer.ENVIRONMENT, f"PasteDeploy file {path}")
    yield Given("default_proc_name", path, source)
    if has_logging(path):
        yield Given("logconfig", path, source)


def has_logging(path: str) -> bool:
    """Tell whether the file holds a configuration of the logging module; what cannot be read has none."""
    parser = configparser.ConfigParser()
    try:
        parser.read([path])
    except (configparser.Error, UnicodeDecodeError):
        return False  # PasteDeploy reads it again, and says what is wrong with it.
    return parser.has_section("loggers")
