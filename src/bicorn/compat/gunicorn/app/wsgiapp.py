"""`gunicorn.app.wsgiapp`: scripts call run() instead of the command, and some subclass WSGIApplication."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bicorn.app.importer import load_app
from bicorn.app.paste import load_paste_app
from bicorn.compat.gunicorn.app.base import Application
from bicorn.errors import ConfigError

if TYPE_CHECKING:
    import argparse

__all__ = ["WSGIApplication", "run"]


class WSGIApplication(Application):
    """The application that the command line, wsgi_app or a PasteDeploy file names."""

    app_uri: str | None = None

    def init(self, parser: argparse.ArgumentParser, opts: argparse.Namespace, args: list[str]) -> object:
        """Take the application's name from the command line."""
        self.app_uri = args[0] if args else None
        return None

    def load_config(self) -> None:
        """Read the configuration; an application has to be named somewhere."""
        super().load_config()
        self.app_uri = self.cfg.paste or self.app_uri or self.cfg.wsgi_app
        if self.app_uri is None:
            raise ConfigError("No application module specified.")

    def load_wsgiapp(self) -> Callable[..., object]:
        """Import the application."""
        assert self.app_uri is not None, "load_config() has looked"
        return load_app(self.app_uri)

    def load_pasteapp(self) -> Callable[..., object]:
        """Load the application that a PasteDeploy file describes."""
        assert self.app_uri is not None, "load_config() has looked"
        return load_paste_app(self.app_uri, defaults=self.cfg.paste_global_conf)

    def load(self) -> Callable[..., object]:
        """Give the application."""
        return self.load_pasteapp() if self.cfg.paste is not None else self.load_wsgiapp()


def run(prog: str | None = None) -> None:
    """Be the command line."""
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog=prog).run()


if __name__ == "__main__":
    run()
