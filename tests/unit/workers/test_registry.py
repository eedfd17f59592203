"""From what `worker_class` says to a class."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from bicorn.config import Settings, load_settings
from bicorn.errors import ConfigError
from bicorn.workers import registry
from bicorn.workers.base import Worker
from bicorn.workers.sync import SyncWorker


def settings(worker_class: object) -> Settings:
    return load_settings([], {}).replace(worker_class=worker_class)


class Mine(Worker):
    """A class of the user's."""

    class Inner(Worker):
        """One that stands inside another."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Make a module of the user's that holds the class."""
    made = types.ModuleType("users_workers")
    made.Mine, made.nothing = Mine, object()  # type: ignore[attr-defined]  # a module made by hand
    monkeypatch.setitem(sys.modules, "users_workers", made)
    return made


@pytest.mark.parametrize("name", ["sync", "gunicorn.workers.sync.SyncWorker", "bicorn.workers.sync.SyncWorker"])
def test_the_sync_worker_has_several_names(name: str) -> None:
    assert registry.load_worker_class(settings(name)) is SyncWorker


@pytest.mark.parametrize("name", ["users_workers.Mine", "users_workers:Mine"])
def test_a_class_is_found_by_its_path(module: types.ModuleType, name: str) -> None:
    assert registry.load_worker_class(settings(name)) is Mine


def test_after_a_colon_a_class_may_stand_in_another(module: types.ModuleType) -> None:
    assert registry.load_worker_class(settings("users_workers:Mine.Inner")) is Mine.Inner


def test_a_class_is_itself() -> None:
    assert registry.load_worker_class(settings(Mine)) is Mine


def test_a_name_may_be_added(module: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ALIASES, "mine", "users_workers.Mine")
    assert registry.load_worker_class(settings("mine")) is Mine


def test_setup_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(Mine, "setup", classmethod(lambda cls: calls.append(cls.__name__)), raising=False)
    registry.load_worker_class(settings(Mine))
    assert calls == ["Mine"]


def test_an_entry_point_is_found_by_its_distribution(
    module: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "users_workers-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: users-workers\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[gunicorn.workers]\nfast = users_workers:Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.load_worker_class(settings("egg:users-workers#fast")) is Mine
    with pytest.raises(ConfigError, match=r"no entry point 'slow' in the group 'gunicorn.workers'; it has fast"):
        registry.load_worker_class(settings("egg:users-workers#slow"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gthreads", r"there is no such name; known are sync, .*package.module.Class\. Did you mean gthread\?"),
        ("gevnt", r"Did you mean gevent\?"),
        ("quick", r"known are sync, [\w, ]+ and a class as package.module.Class\.$"),
        ("meinheld.gmeinheld.MeinheldWorker", "the package meinheld is not installed: pip install meinheld$"),
        ("nowhere.Worker", "there is no module 'nowhere'; check the name"),
        ("users_workers.None_", "the module 'users_workers' has no class 'None_'"),
        ("users_workers.nothing", "it is not a subclass of bicorn.workers.base.Worker"),
        ("egg:nowhere#fast", "the distribution 'nowhere' is not installed"),
        (int, "it is not a subclass of bicorn.workers.base.Worker"),
    ],
)
def test_what_leads_to_no_class_is_explained(module: types.ModuleType, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        registry.load_worker_class(settings(name))
    assert str(caught.value).startswith(f"worker_class = {name!r} (Settings.replace()): ")


@pytest.mark.parametrize(
    ("name", "package", "advice"),
    [
        ("gevent", "gevent", r"'gevent>=[\d.]+'$"),
        ("eventlet", "eventlet", r"'eventlet>=[\d.]+'$"),
        ("tornado", "tornado", r"'tornado>=[\d.]+'$"),
        ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "geventwebsocket", "gevent-websocket"),
        ("uvicorn_worker.UvicornWorker", "uvicorn_worker", "uvicorn-worker; or use asgi, which needs no package"),
        ("uvicorn.workers.UvicornWorker", "uvicorn", "uvicorn-worker; or use asgi, which needs no package"),
    ],
)
def test_a_missing_package_comes_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, advice: str
) -> None:
    for module in [*sys.modules]:
        if module.startswith((f"{package}.", f"bicorn.workers.{package}")):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # import's own sign for "not there"
    with pytest.raises(ConfigError, match=f"the package {package} is not installed: pip install {advice}"):
        registry.load_worker_class(settings(name))


def test_a_class_of_the_real_gunicorn_is_told_apart() -> None:
    from gunicorn.workers.sync import SyncWorker as TheirWorker

    with pytest.raises(ConfigError, match=r"its base is the real Gunicorn's Worker .* without --no-gunicorn-namespace"):
        registry.load_worker_class(settings(TheirWorker))


def test_a_module_that_raises_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raising_workers.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="importing 'raising_workers' raised ZeroDivisionError: division by zero"):
        registry.load_worker_class(settings("raising_workers.Worker"))
