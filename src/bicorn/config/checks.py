"""What can only be seen when all values are there.

Owns       the refusal of features that this version does not have, and of values that do not go together.
Never      reads a source.
Invariant  settings that passed ask for nothing that would be ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from bicorn.config.addresses import parse_address
from bicorn.config.kind import Invalid
from bicorn.config.setting import Setting, shown
from bicorn.config.settings import Settings
from bicorn.errors import ConfigError

#: The names of the class that runs the application in threads only.
GTHREAD: Final = frozenset({"gthread", "gunicorn.workers.gthread.ThreadWorker", "bicorn.workers.threads.ThreadWorker"})
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def check(settings: Settings) -> None:
    """Raise all faults at once, a line each, which names the setting and its source."""
    faults = list(_faults(settings))
    if faults:
        raise ConfigError(*faults)


def _faults(settings: Settings) -> Iterator[str]:
    for name, declaration in settings.declarations().items():
        yield from _absent(settings, name, declaration)
    for check_one in CHECKS:
        yield from check_one(settings)


def _absent(settings: Settings, name: str, declaration: Setting[object]) -> Iterator[str]:
    absent = declaration.absent
    if absent is None or settings.is_default(name) or settings.worker_class in absent.classes:
        return
    if absent.unless is not None and settings.values[absent.unless]:
        return
    where = _where(settings, name)
    yield f"{where} asks for {absent.feature}, {absent.verdict}; remove the setting to start without it"


def _where(settings: Settings, name: str) -> str:
    return f"{name} = {shown(settings.values[name])} ({settings.source_of(name)})"


def _workers(settings: Settings) -> Iterator[str]:
    if settings.workers_max and settings.workers_min > settings.workers_max:
        yield f"{_where(settings, 'workers_min')} is not allowed: it has to be at most workers_max"
    if settings.workers_min and not settings.workers_max:
        yield f"{_where(settings, 'workers_min')} has no effect without workers_max; set that as well"


def _bind(settings: Settings) -> Iterator[str]:
    where = _where(settings, "bind")
    for text in settings.bind:
        if text.isdigit():
            # The resolver would take the number for an IPv4 address: 8000 is 0.0.31.64 (inet_aton(3)).
            yield f"{where} is not allowed: a port alone is written ':{text}'"
            continue
        try:
            parse_address(text)
        except Invalid as reason:
            yield (f"{where} is not allowed: {reason}; it has to be HOST, HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N")
    if not settings.bind and "LISTEN_FDS" not in settings.env_orig:
        yield f"{where} is not allowed: nothing would be listened on; it has to hold at least one address"


def _raw_env(settings: Settings) -> Iterator[str]:
    for text in settings.raw_env:
        if "=" not in text:
            yield f"{_where(settings, 'raw_env')} is not allowed: {text!r} has no value; each has to be KEY=VALUE"


def _directories(settings: Settings) -> Iterator[str]:
    for name, path in (("worker_tmp_dir", settings.worker_tmp_dir), ("tmp_upload_dir", settings.tmp_upload_dir)):
        # They are used after the change to chdir, so that is where a relative one counts from.
        if path is not None and not os.path.isdir(os.path.join(settings.chdir, path)):
            yield f"{_where(settings, name)} is not allowed; it has to be a directory that exists"


def _threads(settings: Settings) -> Iterator[str]:
    if settings.worker_class in GTHREAD and not settings.threads:
        yield f"{_where(settings, 'threads')} is not allowed: a gthread worker needs one at least"


CHECKS: Final[tuple[Callable[[Settings], Iterator[str]], ...]] = (
    _workers,
    _threads,
    _bind,
    _raw_env,
    _directories,
)
