"""The moments at which the server calls the user's code."""

from __future__ import annotations

from typing import Any

from bicorn.config.callables import POST_REQUEST, Hook, hook
from bicorn.config.options.tls import TLS
from bicorn.config.setting import Absent, Options, Setting

DIRTY = Absent("the pool of task processes (dirty arbiter)")

# What a hook is given is typed Any: the arbiter and the workers stand above the settings, which must not import them.


def _on_starting(server: Any) -> None: ...
def _on_reload(server: Any) -> None: ...
def _when_ready(server: Any) -> None: ...
def _pre_fork(server: Any, worker: Any) -> None: ...
def _post_fork(server: Any, worker: Any) -> None: ...
def _post_worker_init(worker: Any) -> None: ...
def _worker_int(worker: Any) -> None: ...
def _worker_abort(worker: Any) -> None: ...
def _pre_exec(server: Any) -> None: ...
def _post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None: ...
def _child_exit(server: Any, worker: Any) -> None: ...
def _worker_exit(server: Any, worker: Any) -> None: ...
def _nworkers_changed(server: Any, new_value: Any, old_value: Any) -> None: ...
def _on_exit(server: Any) -> None: ...
def _on_dirty_starting(arbiter: Any) -> None: ...
def _dirty_post_fork(arbiter: Any, worker: Any) -> None: ...
def _dirty_worker_init(worker: Any) -> None: ...
def _dirty_worker_exit(arbiter: Any, worker: Any) -> None: ...


def _pre_request(worker: Any, req: Any) -> None:
    worker.log.debug("%s %s", req.method, req.path)


def _ssl_context(config: Any, default_ssl_context_factory: Any) -> Any:
    return default_ssl_context_factory()


class HookOptions(Options, section="Server Hooks"):
    """Hooks; a file gives a function of the hook's name."""

    on_starting = Setting[Hook](
        default=_on_starting,
        kind=hook("server"),
        doc="Called in the arbiter before anything else is set up.",
    )
    on_reload = Setting[Hook](
        default=_on_reload,
        kind=hook("server"),
        doc="Called in the arbiter at a reload, when the new configuration is in force and before workers are forked.",
    )
    when_ready = Setting[Hook](
        default=_when_ready,
        kind=hook("server"),
        doc="Called in the arbiter when it listens, before the first worker is forked.",
    )
    pre_fork = Setting[Hook](
        default=_pre_fork,
        kind=hook("server", "worker"),
        doc="Called in the arbiter before each fork.",
    )
    post_fork = Setting[Hook](
        default=_post_fork,
        kind=hook("server", "worker"),
        doc="Called in each worker after the fork, before it sets itself up.",
    )
    post_worker_init = Setting[Hook](
        default=_post_worker_init,
        kind=hook("worker"),
        doc="Called in each worker when the application is loaded.",
    )
    worker_int = Setting[Hook](
        default=_worker_int,
        kind=hook("worker"),
        doc="Called in a worker that got SIGINT or SIGQUIT.",
    )
    worker_abort = Setting[Hook](
        default=_worker_abort,
        kind=hook("worker"),
        doc="Called in a worker that got SIGABRT, which usually means that it exceeded timeout.",
    )
    pre_exec = Setting[Hook](
        default=_pre_exec,
        kind=hook("server"),
        doc="Called in the child that will become a new arbiter, before it runs the new program.",
    )
    pre_request = Setting[Hook](
        default=_pre_request,
        kind=hook("worker", "req"),
        doc="Called in a worker before it handles a request. The default logs method and path at level debug.",
    )
    post_request = Setting[Hook](
        default=_post_request,
        kind=POST_REQUEST,
        doc="Called in a worker after it has handled a request. It may take two, three or four arguments.",
    )
    child_exit = Setting[Hook](
        default=_child_exit,
        kind=hook("server", "worker"),
        doc="Called in the arbiter when a worker has exited.",
    )
    worker_exit = Setting[Hook](
        default=_worker_exit,
        kind=hook("server", "worker"),
        doc="Called in a worker that is about to exit.",
    )
    nworkers_changed = Setting[Hook](
        default=_nworkers_changed,
        kind=hook("server", "new_value", "old_value"),
        doc="Called in the arbiter when the number of workers changed, and at start with None for the old one.",
    )
    on_exit = Setting[Hook](
        default=_on_exit,
        kind=hook("server"),
        doc="Called in the arbiter as the last thing before it exits.",
    )
    ssl_context = Setting[Hook](
        default=_ssl_context,
        kind=hook("config", "default_ssl_context_factory"),
        absent=TLS,
        doc="Called to make the TLS context of a connection. The default returns what the factory makes.",
    )


class DirtyHookOptions(Options, section="Dirty Arbiter Hooks"):
    """Hooks of the pool of task processes."""

    on_dirty_starting = Setting[Hook](
        default=_on_dirty_starting, kind=hook("arbiter"), absent=DIRTY, doc="Called when the pool starts."
    )
    dirty_post_fork = Setting[Hook](
        default=_dirty_post_fork,
        kind=hook("arbiter", "worker"),
        absent=DIRTY,
        doc="Called in a task process after the fork.",
    )
    dirty_worker_init = Setting[Hook](
        default=_dirty_worker_init,
        kind=hook("worker"),
        absent=DIRTY,
        doc="Called in a task process when its tasks are loaded.",
    )
    dirty_worker_exit = Setting[Hook](
        default=_dirty_worker_exit,
        kind=hook("arbiter", "worker"),
        absent=DIRTY,
        doc="Called in a task process that is about to exit.",
    )
