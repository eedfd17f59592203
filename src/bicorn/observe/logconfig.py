"""logconfig, logconfig_json and logconfig_dict: the user's own logging configuration.

Owns       which of the three wins, what they are merged over, and how their errors read.
Never      touches a handler itself: `logging.config` does all of it.
Invariant  at most one of the three is applied: dict before JSON before INI, as in Gunicorn.
"""

from __future__ import annotations

import copy
import json
from logging.config import dictConfig, fileConfig
from pathlib import Path
from typing import Any, Final

from bicorn.errors import ConfigError
from bicorn.observe.settings import LogSettings

#: What a user's dict or JSON is laid over, key by key at the top level only, as in Gunicorn: who gives "handlers"
#: replaces all of them. The values are part of the public surface: configurations rely on "console" and "generic".
CONFIG_DEFAULTS: Final[dict[str, Any]] = {  # Any: the schema is dictConfig's
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        name: {"level": "INFO", "handlers": [handler], "propagate": True, "qualname": name}
        for name, handler in (("gunicorn.error", "error_console"), ("gunicorn.access", "console"))
    },
    "handlers": {
        name: {"class": "logging.StreamHandler", "formatter": "generic", "stream": f"ext://sys.{stream}"}
        for name, stream in (("console", "stdout"), ("error_console", "stderr"))
    },
    "formatters": {
        "generic": {
            "class": "logging.Formatter",
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
        }
    },
}


def apply_logconfig(cfg: LogSettings) -> bool:
    """Apply the one that is set and wins; False if none is set."""
    if cfg.logconfig_dict:
        _apply_dict("logconfig_dict", cfg.logconfig_dict)
    elif cfg.logconfig_json:
        _apply_dict(f"logconfig_json {cfg.logconfig_json!r}", _read_json(cfg.logconfig_json))
    elif cfg.logconfig:
        _apply_ini(cfg.logconfig)
    else:
        return False
    return True


def _apply_dict(source: str, given: dict[str, Any]) -> None:
    # dictConfig rewrites parts of what it is given, so it gets a copy; the user's own objects in it stay themselves.
    merged = {**copy.deepcopy(CONFIG_DEFAULTS), **given}
    try:
        dictConfig(merged)
    except Exception as error:
        raise ConfigError(f"{source}: {_reason(error)}") from error


def _read_json(path: str) -> dict[str, Any]:
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"logconfig_json: cannot read {path!r}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"logconfig_json: {path!r} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"logconfig_json: {path!r} holds {type(given).__name__}, not an object")
    return given


def _apply_ini(path: str) -> None:
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"logconfig: there is no file {path!r} (looked from {Path.cwd()})")
    # %(here)s and %(__file__)s may stand in the INI file, and so may the keys of CONFIG_DEFAULTS.
    defaults = {key: str(value) for key, value in CONFIG_DEFAULTS.items()}
    defaults.update({"__file__": path, "here": str(file.parent)})
    try:
        fileConfig(path, defaults=defaults, disable_existing_loggers=False)
    except Exception as error:
        raise ConfigError(f"logconfig {path!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What dictConfig says, which names the place, and what caused it, which names the fault."""
    cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ is not None else ""
    return f"{type(error).__name__}: {error}{cause}"
