"""Which class a `worker_class` value means.

Owns       the short names of our worker classes and the way to a user's own class.
Never      imports a worker class before it is asked for: each brings its own driver.
Invariant  what load_worker_class gives is a subclass of bicorn.workers.base.Worker.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Final

from bicorn.errors import ConfigError
from bicorn.workers.base import Worker

if TYPE_CHECKING:
    from bicorn.config import Settings

#: Short names, and the dotted names under which Gunicorn's configurations know the same classes.
ALIASES: Final = {
    "sync": "bicorn.workers.sync.SyncWorker",
    "gunicorn.workers.sync.SyncWorker": "bicorn.workers.sync.SyncWorker",
}
ENTRY_POINT_GROUP: Final = "gunicorn.workers"


def load_worker_class(settings: Settings) -> type[Worker]:
    """Give the class that `worker_class` names: a class, an alias, a dotted name, or egg:DISTRIBUTION#NAME."""
    named = settings.worker_class
    found = _load(named) if isinstance(named, str) else named
    if not (isinstance(found, type) and issubclass(found, Worker)):
        raise ConfigError(
            f"worker_class ({settings.source_of('worker_class')}): {named!r} is not a subclass of "
            f"{Worker.__module__}.{Worker.__qualname__}"
        )
    setup = getattr(found, "setup", None)
    if setup is not None:
        setup()
    return found


def _load(name: str) -> object:
    dotted = ALIASES.get(name, name)
    try:
        if dotted.startswith("egg:"):
            return _entry_point(dotted)
        module, dot, attribute = dotted.rpartition(".")
        if not dot:
            raise ConfigError(f"worker_class: {name!r} is unknown; known are {', '.join(_short_names())}")
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, LookupError) as error:
        raise ConfigError(
            f"worker_class: cannot load {name!r}: {error}. Give a class as package.module.Class"
        ) from error
    return found


def _short_names() -> list[str]:
    return [name for name in ALIASES if "." not in name]


def _entry_point(uri: str) -> object:
    distribution, _, name = uri.removeprefix("egg:").partition("#")
    for entry in importlib.metadata.distribution(distribution).entry_points:
        if entry.group == ENTRY_POINT_GROUP and entry.name == name:
            found: object = entry.load()
            return found
    raise LookupError(f"{distribution!r} has no entry point {name!r} in the group {ENTRY_POINT_GROUP!r}")
