"""Hooks and classes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bicorn.config.callables import CLASS, POST_REQUEST, hook, takes
from bicorn.config.kind import Invalid


def test_a_hook_may_be_any_callable_that_takes_its_arguments() -> None:
    class Notifier:
        def __call__(self, server: object, worker: object, *, loud: bool = False) -> None: ...

        def method(self, server: object, worker: object) -> None: ...

    kind = hook("server", "worker")
    for function in (Notifier(), Notifier().method, lambda *args: None, lambda server, worker, extra=1: None, print):
        assert kind.parse(function) is function


@pytest.mark.parametrize(
    "function", [lambda: None, lambda a: None, lambda a, b, c: None, lambda a, b, *, c: None, 5, None]
)
def test_a_hook_that_cannot_be_called_with_its_arguments_is_refused(function: object) -> None:
    with pytest.raises(Invalid):
        hook("server", "worker").parse(function)


def test_a_callable_without_a_signature_is_believed() -> None:
    assert takes(type, 5)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_post_request_gets_as_many_arguments_as_it_takes(count: int) -> None:
    got: list[tuple[object, ...]] = []
    functions = {
        2: lambda worker, req: got.append((worker, req)),
        3: lambda worker, req, environ: got.append((worker, req, environ)),
        4: lambda worker, req, environ, resp: got.append((worker, req, environ, resp)),
    }
    POST_REQUEST.parse(functions[count])("w", "r", "e", "p")
    assert got == [("w", "r", "e", "p")[:count]]


def test_post_request_with_one_argument_is_refused() -> None:
    with pytest.raises(Invalid, match="2, 3 or 4"):
        POST_REQUEST.parse(lambda worker: None)


def test_a_hook_can_be_imported_by_its_path() -> None:
    assert hook("path").parse("os.path.basename") is __import__("os").path.basename


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("basename", "module is missing"),
        ("os.path.nothing", "has no 'nothing'"),
        ("no_such_module.hook", "ModuleNotFoundError"),
        ("raising_hooks.hook", "RuntimeError: not today"),
    ],
)
def test_a_hook_that_cannot_be_imported_is_refused_with_the_reason(
    path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raising_hooks.py").write_text("raise RuntimeError('not today')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(Invalid, match=reason):
        hook("path").parse(path)


def test_a_class_is_itself_its_path_or_what_a_function_gives() -> None:
    assert CLASS.parse(dict) is dict
    assert CLASS.parse(lambda: dict) is dict
    assert CLASS.parse(" package.module.Class ") == "package.module.Class"
    for raw in (None, 5, lambda: None, lambda a: dict):
        with pytest.raises(Invalid):
            CLASS.parse(raw)
