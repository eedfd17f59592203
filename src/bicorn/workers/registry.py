"""Which class a `worker_class` value means.

Owns       the short names of worker classes and the ways to a class that somebody else wrote.
Never      imports a worker class before it is asked for: each brings its own driver.
Invariant  what load_worker_class gives is a subclass of bicorn.workers.base.Worker, and its setup() has run.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from bicorn.config.spelling import nearest
from bicorn.errors import ConfigError
from bicorn.extras import install_command
from bicorn.workers.base import Worker

if TYPE_CHECKING:
    from bicorn.config import Settings

#: Short names. Code written for Gunicorn knows this very dict as gunicorn.workers.SUPPORTED_WORKERS, and some of it
#: adds names of its own before the class is looked up: the one place here that may grow after import.
ALIASES: Final[dict[str, str]] = {
    "sync": "bicorn.workers.sync.SyncWorker",
    "gthread": "bicorn.workers.threads.ThreadWorker",
    "gevent": "bicorn.workers.gevent.GeventWorker",
    "eventlet": "bicorn.workers.eventlet.EventletWorker",
    # Names of Gunicorn's for gevent.pywsgi; here all three are served by the same native loop.
    "gevent_wsgi": "bicorn.workers.gevent.GeventWorker",
    "gevent_pywsgi": "bicorn.workers.gevent.GeventWorker",
    "tornado": "bicorn.workers.tornado.TornadoWorker",
    "asgi": "bicorn.workers.asgi.AsgiWorker",
}
#: Gunicorn's dotted names of classes that stand elsewhere here. They work without the gunicorn namespace, too.
MOVED: Final[Mapping[str, str]] = {
    "gunicorn.workers.sync.SyncWorker": "bicorn.workers.sync.SyncWorker",
    "gunicorn.workers.gthread.ThreadWorker": "bicorn.workers.threads.ThreadWorker",
    "gunicorn.workers.geventlet.EventletWorker": "bicorn.workers.eventlet.EventletWorker",
    "gunicorn.workers.ggevent.GeventWorker": "bicorn.workers.gevent.GeventWorker",
    "gunicorn.workers.ggevent.GeventPyWSGIWorker": "bicorn.workers.gevent.GeventPyWSGIWorker",
    "gunicorn.workers.gtornado.TornadoWorker": "bicorn.workers.tornado.TornadoWorker",
    "gunicorn.workers.gasgi.ASGIWorker": "bicorn.workers.asgi.AsgiWorker",
}
#: Which package to install when the module of a worker class, or one that it imports, is not there.
INSTALL: Final[Mapping[str, str]] = {
    "gevent": "gevent",
    "eventlet": "eventlet",
    "tornado": "tornado",
    "uvloop": "uvloop",
    "uvicorn": "uvicorn-worker",
    "uvicorn_worker": "uvicorn-worker",
    "aiohttp": "aiohttp",
    "meinheld": "meinheld",
    "geventwebsocket": "gevent-websocket",
}
#: Packages with worker classes for ASGI applications, which Bicorn serves itself.
ASGI_PACKAGES: Final = frozenset({"uvicorn", "uvicorn_worker"})
ENTRY_POINT_GROUP: Final = "gunicorn.workers"


class WorkerClassNotFound(Exception):
    """A name leads to no class; the text says why, and what to do."""


def load_worker_class(settings: Settings) -> type[Worker]:
    """Give the class that is named: a class, an alias, package.module.Class, module:Class, or egg:DISTRIBUTION#NAME."""
    named = settings.worker_class
    if isinstance(named, str):
        named = settings.worker_class_str  # More than one thread turns sync into gthread.
    try:
        found = find_worker_class(named) if isinstance(named, str) else named
        if not (isinstance(found, type) and issubclass(found, Worker)):
            raise WorkerClassNotFound(_no_worker(found))
    except WorkerClassNotFound as reason:
        raise ConfigError(f"worker_class = {named!r} ({settings.source_of('worker_class')}): {reason}") from reason
    if settings.proxy_protocol != "off" and not found.READS_PROXY_HEADERS:
        where = f"proxy_protocol = {settings.proxy_protocol!r} ({settings.source_of('proxy_protocol')})"
        raise ConfigError(
            f"{where}: the worker class {settings.worker_class_str!r} reads its requests itself and knows no PROXY "
            "header; use sync, gthread, gevent or eventlet, or remove the setting"
        )
    setup = getattr(found, "setup", None)
    if setup is not None:
        setup()
    return found


def find_worker_class(name: str) -> object:
    """Give what a name leads to, a worker class or not; raise WorkerClassNotFound if that is nothing."""
    dotted = MOVED.get(name) or ALIASES.get(name, name)
    if dotted.startswith("egg:"):
        return _entry_point(dotted)
    module, separator, attribute = dotted.rpartition(":" if ":" in dotted else ".")
    if not separator:
        raise WorkerClassNotFound(_unknown(name))
    return _attribute(module, attribute)


def _unknown(name: str) -> str:
    meant = nearest(name, ALIASES)
    hint = f" Did you mean {meant}?" if meant else ""
    return f"there is no such name; known are {', '.join(ALIASES)}, and a class as package.module.Class.{hint}"


def _attribute(module_name: str, attribute: str) -> object:
    try:
        found: object = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except ModuleNotFoundError as error:
        raise WorkerClassNotFound(_not_installed(module_name, error)) from error
    except AttributeError:
        raise WorkerClassNotFound(f"the module {module_name!r} has no class {attribute!r}") from None
    except Exception as error:  # whatever the user's module raises while it is imported
        raise WorkerClassNotFound(f"importing {module_name!r} raised {type(error).__name__}: {error}") from error
    return found


def _not_installed(module_name: str, error: ModuleNotFoundError) -> str:
    missing = error.name or module_name
    package = missing.partition(".")[0]
    if package in INSTALL:
        instead = "; or use asgi, which needs no package" if package in ASGI_PACKAGES else ""
        return f"the package {package} is not installed: {install_command(INSTALL[package])}{instead}"
    if missing != package and error.args:
        return str(error)  # A package that is there lacks a module; Bicorn's gunicorn namespace says which it has.
    return f"there is no module {missing!r}; check the name, and that its package is installed in this environment"


def _entry_point(uri: str) -> object:
    import importlib.metadata  # A tenth of a start, for the few who name a class so.

    distribution, _, name = uri.removeprefix("egg:").partition("#")
    try:
        entries = importlib.metadata.distribution(distribution).entry_points
    except importlib.metadata.PackageNotFoundError:
        raise WorkerClassNotFound(f"the distribution {distribution!r} is not installed") from None
    names = {entry.name: entry for entry in entries if entry.group == ENTRY_POINT_GROUP}
    if name not in names:
        known = f"it has {', '.join(names)}" if names else "it has none"
        raise WorkerClassNotFound(
            f"{distribution!r} has no entry point {name!r} in the group {ENTRY_POINT_GROUP!r}; {known}"
        )
    entry = names[name]
    return _attribute(entry.module, entry.attr)


def _no_worker(found: object) -> str:
    ours = f"{Worker.__module__}.{Worker.__qualname__}"
    bases = found.__mro__ if isinstance(found, type) else ()
    if any(base.__module__ == "gunicorn.workers.base" for base in bases):
        return (
            f"its base is the real Gunicorn's Worker and not {ours}. Start without --no-gunicorn-namespace (and "
            "without BICORN_NO_GUNICORN_NAMESPACE), so that classes written for Gunicorn find Bicorn's"
        )
    return f"it is not a subclass of {ours}"
