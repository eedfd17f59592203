"""`gunicorn.errors`, for embedding programs and hooks that end the server or report a bad configuration."""

from bicorn.errors import AppImportError, ConfigError, HaltServer

__all__ = ["AppImportError", "ConfigError", "HaltServer"]
