"""Which configuration is read, and what is served."""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import optional_text


class ConfigFileOptions(Options, section="Config File"):
    """Settings that say where the rest is."""

    config = Setting(
        default=None,
        kind=optional_text("CONFIG"),
        cli=("-c", "--config"),
        default_text="./bicorn.conf.py, else ./gunicorn.conf.py, if it exists",
        doc="The configuration file: PATH, file:PATH or python:MODULE. Read from the command line, else from "
        "BICORN_CMD_ARGS, else from GUNICORN_CMD_ARGS; one file is read, and inside a file this setting has no effect.",
    )
    wsgi_app = Setting(
        default=None,
        kind=optional_text(),
        doc="The application (MODULE:NAME), for when the command line names none.",
    )
