"""--reload: a thread in each worker that notices when a source file changes.

Owns       the set of watched files, their last known state, and the wait between two looks.
Never      ends the worker: it calls `on_change` once with the file's name, and the worker decides.
Invariant  what changed is decided by comparing files with their known state; the file system's events only end the
           wait early, so no engine can miss a change that another would see.
"""

from __future__ import annotations

import glob
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from bicorn.extras import install_command

if TYPE_CHECKING:
    from watchfiles import Change

POLL_INTERVAL_S: Final = 1.0  # Gunicorn's
#: How long watchfiles gathers events of one save before it tells us; an editor's write and rename fit in.
DEBOUNCE_MS: Final = 50
_STDLIB: Final = os.path.realpath(sysconfig.get_paths()["stdlib"])

Fingerprint = tuple[int, int, int]  # modification time in ns, size, inode: an editor may keep any two of them
_GLOB_CHARS: Final = frozenset("*?[")


class Reloader(threading.Thread):
    """Watches every imported module's file and the extra files, until the first change."""

    def __init__(
        self,
        extra_files: Iterable[str],
        engine: str,
        on_change: Callable[[str], None],
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`engine` is auto, watchfiles, inotify (Gunicorn's word) or poll; `notice` takes lines for the log."""
        super().__init__(name="bicorn-reloader", daemon=True)
        extra = set(extra_files)
        self._patterns = {path for path in extra if _is_glob(path)}
        self._files = extra - self._patterns
        self._engine = engine
        self._on_change = on_change
        self._notice = notice
        self._stop_event = threading.Event()
        self._known: dict[str, Fingerprint] = {}

    def add_extra_file(self, path: str) -> None:
        """Watch one more file, from the next look on."""
        self._files = {*self._files, path}  # A new set, because the thread may be iterating over the old one.

    def poll_only(self) -> None:
        """Look every second whatever the engine is, because its wait would hold up more than this thread."""
        self._engine = "poll"

    def start(self) -> None:
        """Remember every file as it is now, then start looking."""
        self._known = dict(self._look())
        super().start()

    def stop(self) -> None:
        """End the thread, at the latest after one wait."""
        self._stop_event.set()

    def run(self) -> None:
        """Wait and compare until something changed."""
        wait = self._make_wait()
        while not self._stop_event.is_set():
            changed = self._changed()
            if changed is not None:
                self._on_change(changed)
                return
            try:
                wait(self._paths())
            except (OSError, RuntimeError) as error:
                # watchfiles raises a RuntimeError of its own for what the kernel refuses. Out of inotify watches is the
                # usual cause; looking by ourselves needs none.
                self._notice(f"Watching for file events failed ({error}); looking every {POLL_INTERVAL_S:g} s instead.")
                wait = self._poll

    def _make_wait(self) -> Callable[[set[str]], None]:
        if self._engine == "poll":
            return self._poll
        try:
            return EventWait(self._stop_event)
        except ImportError:
            if self._engine != "auto":
                self._notice(
                    f"reload_engine {self._engine!r} needs the package watchfiles ({install_command('watchfiles')}); "
                    f"looking every {POLL_INTERVAL_S:g} s instead."
                )
            return self._poll

    def _poll(self, paths: set[str]) -> None:
        self._stop_event.wait(POLL_INTERVAL_S)

    def _changed(self) -> str | None:
        """The first file that is not as it was, or that appeared where a pattern matches."""
        for path, fingerprint in self._look():
            known = self._known.get(path)
            if known is None and not self._is_matched(path):
                self._known[path] = fingerprint  # A module imported since the last look.
            elif known != fingerprint:
                return path
        return None

    def _is_matched(self, path: str) -> bool:
        return any(path in glob.glob(pattern, recursive=True) for pattern in self._patterns)

    def _look(self) -> Iterator[tuple[str, Fingerprint]]:
        for path in sorted(self._paths()):
            try:
                found = os.stat(path)
            except OSError:
                continue  # Deleted, perhaps between an editor's two steps: it counts when it is back.
            yield path, (found.st_mtime_ns, found.st_size, found.st_ino)

    def _paths(self) -> set[str]:
        """Every file to watch. Patterns are expanded each time, so that new files count."""
        paths = set(_module_files()) | self._files
        for pattern in self._patterns:
            paths.update(glob.glob(pattern, recursive=True))
        return paths


class EventWait:
    """Sleeps until the file system tells of a change to a watched file, at most one poll interval.

    The watcher is kept between waits, so that events that arrive meanwhile are not lost, and made anew when the set of
    directories grew. Directories are watched rather than files, because editors replace a file by renaming over it.
    """

    def __init__(self, stop_event: threading.Event) -> None:
        from watchfiles import watch  # The extra `reload`; without it the caller falls back to polling.

        self._watch = watch
        self._stop_event = stop_event
        self._directories: frozenset[str] = frozenset()
        self._events: Iterator[set[tuple[Change, str]]] = iter(())

    def __call__(self, paths: set[str]) -> None:
        """Wait for an event on one of `paths`."""
        deadline = time.monotonic() + POLL_INTERVAL_S
        names = {name for path in paths for name in _names(path)}
        directories = frozenset(directory for name in names if _is_worth_watching(directory := os.path.dirname(name)))
        if directories != self._directories:
            self._directories, self._events = directories, self._open(directories)
        # Events of other files (a log, a database beside the code) must neither end the wait nor prolong it.
        while time.monotonic() < deadline and not self._stop_event.is_set():
            events = next(self._events, None)
            if events is None:  # Nothing to watch yet, or the watcher ended; try anew after the interval.
                self._directories = frozenset()
                self._stop_event.wait(max(deadline - time.monotonic(), 0))
            elif any(name in names for _, name in events):
                return

    def _open(self, directories: frozenset[str]) -> Iterator[set[tuple[Change, str]]]:
        if not directories:
            return iter(())
        return self._watch(
            *sorted(directories),
            watch_filter=None,
            debounce=4 * DEBOUNCE_MS,
            step=DEBOUNCE_MS,
            stop_event=self._stop_event,
            rust_timeout=int(POLL_INTERVAL_S * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=True,
        )


def _names(path: str) -> Iterator[str]:
    """The file as events name it: where it stands, and where it really is if it is a link."""
    directory, name = os.path.split(os.path.abspath(path))
    yield os.path.join(os.path.realpath(directory), name)
    yield os.path.realpath(path)


def _is_worth_watching(directory: str) -> bool:
    """Directories of the standard library are left out: they never change, and each one costs an inotify watch."""
    return os.path.isdir(directory) and (not directory.startswith(_STDLIB) or "-packages" in directory)


def _module_files() -> Iterator[str]:
    for module in tuple(sys.modules.values()):  # A copy: another thread may be importing.
        path = getattr(module, "__file__", None)
        if isinstance(path, str):
            yield path[:-1] if path.endswith((".pyc", ".pyo")) else path


def _is_glob(path: str) -> bool:
    return not _GLOB_CHARS.isdisjoint(path)
