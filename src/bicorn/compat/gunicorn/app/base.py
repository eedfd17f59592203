"""`gunicorn.app.base`: the classes that a program subclasses to run the server itself.

Owns       the order in which such a program's configuration comes together, at start and at each reload.
Never      forks: the arbiter does, with the program's object as its application.
Invariant  a reload that fails leaves `cfg` as it was; workers get an object of their own generation.

Needed by embedding programs, of which Gunicorn's documentation has an example (StandaloneApplication).
"""

from __future__ import annotations

import copy
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from bicorn.app import application
from bicorn.arbiter.daemon import daemonize
from bicorn.arbiter.promotion import is_upgrade
from bicorn.compat.gunicorn.arbiter import Arbiter
from bicorn.compat.gunicorn.config import Config, get_default_config_file
from bicorn.config import Settings, config_file, load_settings
from bicorn.config.load import print_warning
from bicorn.config.sources import Layer, Source
from bicorn.errors import BicornError

if TYPE_CHECKING:
    import argparse

__all__ = ["Application", "BaseApplication", "get_default_config_file"]


class BaseApplication(application.Application):
    """A server that a program configures: load_config() fills `cfg`, load() gives the application."""

    cfg: Config

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        self.usage = usage
        self.prog = prog
        self.callable: Callable[..., object] | None = None
        self.logger: Any = None  # Any: whatever a subclass puts there; Gunicorn never sets it either
        self.do_load_config()

    def do_load_config(self) -> None:
        """Fill `cfg` anew; what a program raises meanwhile ends the process with 1."""
        try:
            self.load_default_config()
            self.load_config()
            self.cfg.validate()
        except Exception as error:  # noqa: BLE001  # whatever the program raises
            _end(f"Error: {error}")

    def load_default_config(self) -> None:
        """Begin with the defaults."""
        self.cfg = Config(self.usage, prog=self.prog)

    def init(self, parser: argparse.ArgumentParser, opts: argparse.Namespace, args: list[str]) -> object:
        """Look at the command line; what is returned as a dict counts as settings below the configuration file."""
        raise NotImplementedError

    def load_config(self) -> None:
        """Set what the program wants: self.cfg.set(name, value)."""
        raise NotImplementedError

    def load(self) -> Callable[..., object]:
        """Give the application; called in each worker, or in the arbiter with preload_app."""
        raise NotImplementedError

    def load_again(self) -> Settings:
        """Read the configuration anew for a reload, and leave the one in force alone."""
        in_force = self.cfg
        try:
            self.reload()
            return self.cfg
        finally:
            self.cfg = in_force

    def renew(self, settings: Settings) -> application.Application:
        """Give a copy of this object with other settings and no application yet."""
        renewed = copy.copy(self)
        renewed.cfg, renewed.callable = cast("Config", settings), None
        return renewed

    def reload(self) -> None:
        """Read the configuration anew."""
        self.do_load_config()

    def run(self) -> None:
        """Serve until told to stop, and exit."""
        try:
            code = Arbiter(self).run()
        except (BicornError, RuntimeError) as error:
            _end(f"Error: {error}", int(getattr(error, "exit_code", 1)))
        sys.exit(code)


class Application(BaseApplication):
    """A server with a command line, environment variables and a configuration file, as `bicorn` itself has them."""

    def get_config_from_filename(self, filename: str) -> dict[str, Any]:
        """Execute a configuration file and give its names."""
        if not os.path.exists(filename):
            raise RuntimeError(f"{filename!r} doesn't exist")
        return self._read(filename)

    def get_config_from_module_name(self, module_name: str) -> dict[str, Any]:
        """Import a configuration and give its names."""
        return self._read(f"python:{module_name}")

    def load_config_from_module_name_or_filename(self, location: str) -> dict[str, Any]:
        """Take every setting of a configuration: PATH, file:PATH or python:MODULE."""
        found = self._read(location)
        for name, value in found.items():
            self.cfg.set(name, value)
        return found

    load_config_from_file = load_config_from_module_name_or_filename

    def _read(self, location: str) -> dict[str, Any]:
        place = config_file.Location(location, Source(Layer.CODE, "the embedding program"))
        given = config_file.read(place, self.cfg.declarations(), print_warning)
        return {item.name: item.raw for item in given}

    def load_config(self) -> None:
        """Read everything that `bicorn` reads; init() sees the command line first."""
        parser = self.cfg.parser()
        options = parser.parse_args()
        chosen = self.init(parser, options, options.args)
        for name, value in (chosen if isinstance(chosen, dict) else {}).items():
            self.cfg.set(name.lower(), value)
        before = self.cfg
        self.cfg = cast(
            "Config",
            load_settings(
                sys.argv[1:], os.environ, prog=before.prog, given=list(before.chosen()), settings_class=Config
            ),
        )
        self.chdir()

    def run(self) -> None:
        """Do what the command line asks for: print or check the configuration, or serve."""
        if self.cfg.print_config:
            sys.stdout.write(f"{self.cfg}\n")
        if self.cfg.print_config or self.cfg.check_config:
            self._check()
        if self.cfg.daemon and not is_upgrade(os.environ):
            daemonize(keep_redirected_streams=self.cfg.enable_stdio_inheritance)
        super().run()

    def _check(self) -> None:
        try:
            self.load()
        except Exception:  # noqa: BLE001  # whatever the application raises
            _end(f"Error while loading the application:\n\n{traceback.format_exc()}")
        sys.exit(0)


def _end(message: str, code: int = 1) -> None:
    sys.stderr.write(f"\n{message}\n\n")
    sys.stderr.flush()
    sys.exit(code)
