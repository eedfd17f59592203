"""The object that workers call `app`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bicorn.app.application import Application
from bicorn.errors import ConfigError

Project = Callable[..., Path]


@dataclass
class Values:
    """The settings that an Application reads."""

    app_uri: str | None = "run:app"
    chdir: str = "."
    pythonpath: str | None = None
    paste: str | None = None


def application(**values: Any) -> Application:
    settings: Any = Values(**values)
    return Application(settings)


def test_the_module_is_imported_by_the_first_call_only(project: Project) -> None:
    where = project(run="with open('loads', 'a') as f:\n    f.write('x')\ndef app(environ, start_response): ...\n")
    app = application()
    assert app.callable is None
    assert app.wsgi() is app.wsgi() is app.callable
    assert (where / "loads").read_text() == "x"
    app.reload()
    assert app.callable is None


def test_chdir_enters_the_directory_and_puts_it_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    where = project(inner__run="def app(environ, start_response): ...\n", lib__extra="", more__other="")
    monkeypatch.setattr(sys, "path", [*sys.path])
    app = application(chdir=str(where / "inner"), pythonpath="../lib,../more")
    app.chdir()
    app.chdir()
    assert os.getcwd() == str(where / "inner")
    assert sys.path[:3] == [str(where / "more"), str(where / "lib"), str(where / "inner")]
    assert sys.path.count(str(where / "inner")) == 1
    assert app.wsgi() is app.callable


def test_a_directory_that_cannot_be_entered_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"chdir: cannot enter .*gone.*No such file"):
        application(chdir=str(tmp_path / "gone")).chdir()


def test_no_application_named_says_how_to_name_one() -> None:
    with pytest.raises(ConfigError, match="wsgi_app"):
        application(app_uri=None).wsgi()
