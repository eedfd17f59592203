"""The reloader on real files, with each engine."""

from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bicorn.app import reloader
from bicorn.app.reloader import Reloader

DEADLINE_S = 10.0
ENGINES = ["poll", "watchfiles", "inotify", "auto"]
Project = Callable[..., Path]


class Counting(Reloader):
    """Tells each time it has looked at every file."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.looks = threading.Semaphore(0)

    def _changed(self) -> str | None:
        found = super()._changed()
        self.looks.release()
        return found


class Watched:
    """A reloader and what it reported."""

    def __init__(self, engine: str, extra_files: list[str]) -> None:
        self.changes: queue.Queue[str] = queue.Queue()
        self.notices: list[str] = []
        self.reloader = Counting(extra_files, engine, self.changes.put, self.notices.append)

    def change(self) -> str:
        return self.changes.get(timeout=DEADLINE_S)

    def looked_again(self) -> None:
        """Return after one more whole look at every file, which reported nothing."""
        while self.reloader.looks.acquire(blocking=False):
            pass
        for _ in range(2):  # The first of the two may have begun before this call.
            assert self.reloader.looks.acquire(timeout=DEADLINE_S)
        assert self.changes.empty()


@pytest.fixture(params=ENGINES)
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watched]]:
    monkeypatch.setattr(reloader, "POLL_INTERVAL_S", 0.05)
    started: list[Watched] = []

    def start(*extra_files: object) -> Watched:
        watched = Watched(request.param, [str(path) for path in extra_files])
        watched.reloader.start()
        started.append(watched)
        return watched

    yield start
    for watched in started:
        watched.reloader.stop()
        watched.reloader.join(DEADLINE_S)
        assert not watched.reloader.is_alive()


def test_a_changed_module_is_reported_once(watch: Callable[..., Watched], project: Project) -> None:
    where = project(changing="x = 1\n", still="")
    importlib.import_module("changing")
    importlib.import_module("still")
    watched = watch()
    (where / "changing.py").write_text("x = 22\n")
    assert watched.change() == str(where / "changing.py")
    watched.reloader.join(DEADLINE_S)
    assert watched.changes.empty()


def test_a_file_that_an_editor_replaces_is_reported(watch: Callable[..., Watched], project: Project) -> None:
    where = project(changing="x = 1\n")
    importlib.import_module("changing")
    stamp = (where / "changing.py").stat()
    watched = watch()
    (where / "new").write_text("x = 2\n")
    os.utime(where / "new", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # Same size, same time: only the inode tells.
    (where / "new").rename(where / "changing.py")
    assert watched.change() == str(where / "changing.py")


def test_a_module_imported_later_is_watched_from_then_on(watch: Callable[..., Watched], project: Project) -> None:
    where = project(inner__late="x = 1\n")
    watched = watch()
    importlib.import_module("inner.late")
    watched.looked_again()
    (where / "inner" / "late.py").write_text("x = 22\n")
    assert watched.change() == str(where / "inner" / "late.py")


def test_an_extra_file_is_watched_and_others_beside_it_are_not(watch: Callable[..., Watched], tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("a = 1")
    watched = watch(tmp_path / "settings.toml")
    (tmp_path / "noise.log").write_text("line")
    watched.looked_again()
    (tmp_path / "settings.toml").write_text("a = 22")
    assert watched.change() == str(tmp_path / "settings.toml")


def test_an_extra_file_added_while_running_is_watched(watch: Callable[..., Watched], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (")
    watched = watch()
    watched.reloader.add_extra_file(str(tmp_path / "broken.py"))
    watched.looked_again()
    (tmp_path / "broken.py").write_text("def f(): ...")
    assert watched.change() == str(tmp_path / "broken.py")


@pytest.mark.parametrize("pattern", ["*.html", "**/*.html", "?.html", "[ab].html"])
def test_a_pattern_reports_changes_and_new_files(pattern: str, watch: Callable[..., Watched], tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("one")
    changed = watch(tmp_path / pattern)
    (tmp_path / "a.html").write_text("two, longer")
    assert changed.change() == str(tmp_path / "a.html")
    appeared = watch(tmp_path / pattern)
    (tmp_path / "b.html").write_text("new")
    assert appeared.change() == str(tmp_path / "b.html")


def test_a_link_is_followed(watch: Callable[..., Watched], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "settings").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "settings")
    watched = watch(tmp_path / "link")
    (tmp_path / "real" / "settings").write_text("22")
    assert watched.change() == str(tmp_path / "link")


def test_a_deleted_file_counts_when_it_is_back(watch: Callable[..., Watched], tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("1")
    watched = watch(file)
    file.unlink()
    watched.looked_again()
    file.write_text("2")
    assert watched.change() == str(file)


@pytest.mark.parametrize(("engine", "told"), [("auto", 0), ("poll", 0), ("watchfiles", 1), ("inotify", 1)])
def test_without_watchfiles_it_polls_and_says_so_to_who_asked(
    engine: str, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloader, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setitem(sys.modules, "watchfiles", None)  # what an interpreter without the package sees
    (tmp_path / "file").write_text("1")
    watched = Watched(engine, [str(tmp_path / "file")])
    watched.reloader.start()
    (tmp_path / "file").write_text("22")
    assert watched.change() == str(tmp_path / "file")
    assert len([text for text in watched.notices if "pip install 'watchfiles>=" in text]) == told
