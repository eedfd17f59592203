"""Gunicorn's pool of task processes, which this version does not have."""

from __future__ import annotations

from bicorn.config.setting import Absent, Options, Setting
from bicorn.config.values import COUNT, texts

DIRTY = Absent("the pool of task processes (dirty arbiter)")


class DirtyOptions(Options, section="Dirty Arbiters"):
    """Settings of the pool."""

    dirty_apps = Setting(
        default=[],
        kind=texts("STRING"),
        cli=("--dirty-app",),
        absent=DIRTY,
        doc="The classes of tasks, MODULE:CLASS. May be given several times.",
    )
    dirty_workers = Setting(
        default=0,
        kind=COUNT,
        cli=("--dirty-workers",),
        unit="processes",
        absent=DIRTY,
        doc="The number of task processes.",
    )
    dirty_timeout = Setting(
        default=300,
        kind=COUNT,
        cli=("--dirty-timeout",),
        unit="seconds",
        absent=DIRTY,
        doc="How long a task may take.",
    )
    dirty_threads = Setting(
        default=1,
        kind=COUNT,
        cli=("--dirty-threads",),
        unit="threads",
        absent=DIRTY,
        doc="The number of threads of each task process.",
    )
    dirty_graceful_timeout = Setting(
        default=30,
        kind=COUNT,
        cli=("--dirty-graceful-timeout",),
        unit="seconds",
        absent=DIRTY,
        doc="How long a task may go on after its process was told to stop.",
    )
