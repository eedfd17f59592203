"""`gunicorn.app.pasterapp`: what PasteDeploy starts for `[server:main] use = egg:bicorn`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from bicorn.app.paste import load_paste_app
from bicorn.compat import namespace
from bicorn.compat.gunicorn.app.wsgiapp import WSGIApplication
from bicorn.compat.gunicorn.config import get_default_config_file
from bicorn.config.paste import has_logging as has_logging_config

__all__ = ["get_wsgi_app", "has_logging_config", "serve"]


def get_wsgi_app(
    config_uri: str, name: str | None = None, defaults: Mapping[str, str] | None = None
) -> Callable[..., object]:
    """Give the application that a PasteDeploy file describes."""
    return load_paste_app(config_uri, name, defaults)


def serve(app: Callable[..., object], global_conf: Mapping[str, str], **local_conf: Any) -> None:
    """Serve the application with the settings of its [server] section, until told to stop; then exit."""
    if namespace.is_wanted(os.environ):
        namespace.install()
    file = global_conf["__file__"]
    own_config = local_conf.pop("config", None) or get_default_config_file()
    chosen = {**_bind(local_conf.pop("host", ""), local_conf.pop("port", "")), **local_conf}

    class PasterServerApplication(WSGIApplication):
        def load_config(self) -> None:
            self.cfg.set("default_proc_name", file)
            if has_logging_config(file):
                self.cfg.set("logconfig", file)
            if own_config is not None:
                self.load_config_from_file(own_config)
            for name, value in chosen.items():
                if value is not None:
                    self.cfg.set(name.lower(), value)

        def load(self) -> Callable[..., object]:
            return app

    PasterServerApplication().run()


def _bind(host: str, port: str) -> dict[str, object]:
    if host and port:
        return {"bind": f"{host}:{port}"}
    return {"bind": host.split(",")} if host else {}
