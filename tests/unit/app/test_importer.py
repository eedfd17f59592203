"""Loading an application: what works, and what each failure says first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bicorn.app.importer import AppModuleError, load_app
from bicorn.errors import AppImportError, ExitCode

Project = Callable[..., Path]

APP = "def app(environ, start_response):\n    return [b'%s']\n"


def answer(uri: str) -> Any:
    return load_app(uri)({}, None)


def failure(uri: str) -> AppImportError:
    with pytest.raises(AppImportError) as caught:
        load_app(uri)
    assert "importlib" not in str(caught.value)
    assert "importer.py" not in str(caught.value)
    # Printed by anybody, it shows no chain of our own errors below the user's.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


def test_the_ways_to_name_an_application(project: Project) -> None:
    project(
        run=APP.replace("%s", "app") + "application = lambda environ, start_response: [b'application']\n",
        only=APP.replace("%s", "only"),
        pkg____init__="",
        pkg__web=APP.replace("%s", "pkg") + "class holder:\n    inner = staticmethod(app)\n",
        make="def create(word='none', *, twice=False):\n"
        "    return lambda environ, start_response: [word.encode() * (1 + twice)]\n",
    )
    assert answer("run:app") == [b"app"]
    assert answer("run") == [b"application"]
    assert answer("only") == [b"only"]
    assert answer("pkg.web:app") == [b"pkg"]
    assert answer("pkg.web:holder.inner") == [b"pkg"]
    assert answer("make:create()") == [b"none"]
    assert answer("make:create('x', twice=True)") == [b"xx"]


def test_a_missing_module_is_told_with_near_names_and_where_was_looked(project: Project) -> None:
    where = project(run=APP, shop__wsgi=APP)
    error = failure("rum:app")
    assert str(error).startswith("Cannot load 'rum:app': there is no module 'rum'.\nDid you mean 'run:app'?\n")
    assert str(where) in str(error)
    assert error.exit_code is ExitCode.WORKER_BOOT_ERROR
    assert "Did you mean 'shop.wsgi'?" in str(failure("shop.wsgy"))
    assert "there is no module 'nowhere'" in str(failure("nowhere.at.all:app"))


def test_a_module_inside_a_package_is_proposed(project: Project) -> None:
    project(shop____init__="", shop__wsgi=APP, shop__urls="", shop__entry=APP)
    assert "Did you mean 'shop.entry:app'?" in str(failure("entry:app"))
    assert "Did you mean 'shop.wsgi'?\n" in str(failure("shop.asgi"))
    assert str(failure("shop")).endswith("has no attribute 'application' or 'app'.\nDid you mean 'shop.wsgi'?")


def test_a_module_that_the_application_misses_is_the_applications_fault(project: Project) -> None:
    where = project(run="import json\nimport not_there_at_all\n")
    error = failure("run:app")
    assert str(error) == (
        "Traceback (most recent call last):\n"
        f'  File "{where}/run.py", line 2, in <module>\n'
        "    import not_there_at_all\n"
        "ModuleNotFoundError: No module named 'not_there_at_all'\n"
        "Cannot load 'run:app': ModuleNotFoundError was raised while module 'run' was imported."
    )
    assert isinstance(error, AppModuleError)
    assert error.files == (f"{where}/run.py",)
    assert error.exit_code is ExitCode.WORKER_BOOT_ERROR


def test_a_module_that_misses_itself_by_name_is_still_the_applications_fault(project: Project) -> None:
    project(pkg____init__="import pkg.web\n")
    error = failure("pkg.web:app")
    assert str(error).startswith("Traceback")
    assert "No module named 'pkg.web'" in str(error)


def test_an_import_error_inside_is_shown_with_the_users_frames_only(project: Project) -> None:
    where = project(run="from models import Missing\n", models="import os\n")
    lines = str(failure("run:app")).splitlines()
    assert lines[1] == f'  File "{where}/run.py", line 1, in <module>'
    assert lines[-2].startswith("ImportError: cannot import name 'Missing' from 'models'")


def test_a_chain_of_causes_is_kept_and_cleaned(project: Project) -> None:
    project(
        run="import settings\n",
        settings="try:\n    import absent_module\nexcept ImportError as e:\n    raise RuntimeError('none') from e\n",
    )
    text = str(failure("run:app"))
    assert "No module named 'absent_module'" in text
    assert "direct cause" in text
    assert "RuntimeError: none" in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are of Python 3.11")
def test_a_group_of_errors_is_cleaned_too(project: Project) -> None:
    project(
        run="import parts\n",
        parts="try:\n    import nope_a\nexcept ImportError as e:\n    raise ExceptionGroup('both', [e])\n",
    )
    assert "No module named 'nope_a'" in str(failure("run:app"))


def test_a_syntax_error_shows_the_line_and_nothing_of_ours(project: Project) -> None:
    where = project(run="def app(:\n    pass\n")
    error = failure("run:app")
    assert isinstance(error, AppModuleError)
    assert f'File "{where}/run.py", line 1' in str(error)
    assert "SyntaxError: invalid syntax" in str(error)
    assert error.files == (f"{where}/run.py",)


def test_a_module_that_exits_is_an_error_and_not_an_exit(project: Project) -> None:
    project(run="import sys\nsys.exit(0)\n")
    error = failure("run:app")
    assert "it called sys.exit(0) while module 'run' was imported" in str(error)
    assert error.exit_code is ExitCode.WORKER_BOOT_ERROR


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("run:ap", "has no attribute 'ap'.\nDid you mean 'run:app'?"),
        ("run:applicaton", "Did you mean 'run:app' or 'run:create_app()'?"),
        ("run:create_ap", "Did you mean 'run:create_app()'"),
        ("run:app.nope", "'run:app' has no attribute 'nope'"),
        ("run:zzz", "Did you mean 'run:app' or 'run:create_app()'?"),
        (
            "run:create_app",
            "takes no arguments, so it is a factory rather than an application. Did you mean 'run:create_app()'?",
        ),
        ("run:number", "'number' is an int; an application must be callable"),
        ("run:json", "'json' is the module 'json'"),
        ("run:nothing", "'nothing' is None"),
        ("run:number()", "'number' is an int, which cannot be called"),
        ("run:broken()", "the factory 'broken' returned None"),
        ("run:text()", "the factory 'text' returned a str"),
        ("run:app(1, 2, 3)", "TypeError: app() takes 2 positional arguments but 3 were given"),
        ("run:create_app(debug=1)", "unexpected keyword argument 'debug'"),
        ("run:create_app(debug=1)", "Its signature is create_app()."),
        ("run:Strange(1)", "TypeError"),
    ],
)
def test_names_and_arguments_that_do_not_fit_end_with_gunicorns_code_4(uri: str, said: str, project: Project) -> None:
    project(
        run=APP
        + "import json\nnumber = 3\nnothing = None\ndef create_app():\n    return app\ndef broken():\n    pass\n"
        "def text():\n    return 'app'\nclass Strange:\n    pass\n"
    )
    error = failure(uri)
    assert said in str(error)
    assert "Traceback" not in str(error)
    assert error.exit_code is ExitCode.APP_LOAD_ERROR


def test_a_module_without_either_default_name_says_both(project: Project) -> None:
    project(run="def create_app():\n    return None\n")
    text = str(failure("run"))
    assert "has no attribute 'application' or 'app'" in text
    assert "Did you mean 'run:create_app()'?" in text


def test_a_factory_that_raises_shows_its_traceback(project: Project) -> None:
    where = project(run="def make(n):\n    return helper(n)\ndef helper(n):\n    raise TypeError('inner')\n")
    error = failure("run:make(1)")
    assert str(error).startswith(
        f'Traceback (most recent call last):\n  File "{where}/run.py", line 2, in make\n    return helper(n)'
    )
    assert "TypeError: inner" in str(error)
    assert error.exit_code is ExitCode.WORKER_BOOT_ERROR


def test_a_lazy_attribute_that_raises_shows_its_traceback(project: Project) -> None:
    project(run="def __getattr__(name):\n    raise AttributeError(f'no {name} today')\n")
    text = str(failure("run:app"))
    assert "AttributeError: no app today" in text
    assert "in __getattr__" in text


def test_attribute_look_up_may_raise_anything(project: Project) -> None:
    project(run="class C:\n    @property\n    def app(self):\n        return 1 / 0\nholder = C()\n")
    assert "ZeroDivisionError" in str(failure("run:holder.app"))


@pytest.mark.parametrize(
    ("uri", "suggestion"),
    [
        ("run.py", "run:application"),
        ("run.py:app", "run:app"),
        ("web/run.py", "web.run:app"),
        ("web/run.py:app", "web.run:app"),
        ("web/run:app", "web.run:app"),
        ("./run.py:app", "run:app"),
        ("missing/run.py", "missing.run:app"),
    ],
)
def test_a_files_path_is_answered_with_the_modules_name(uri: str, suggestion: str, project: Project) -> None:
    project(run="application = None\nraise SystemExit('imported')\n", web__run=APP)
    assert f"Did you mean {suggestion!r}?" in str(failure(uri))


def test_a_path_outside_is_answered_with_chdir(project: Project) -> None:
    project(run=APP)
    assert "--chdir" in str(failure("../run.py:app"))


def test_a_dot_instead_of_a_colon_is_recognised(project: Project) -> None:
    project(run=APP)
    assert "'run' is a module, not a package. Did you mean 'run:app'?" in str(failure("run.app"))


def test_a_factory_of_two_arguments_with_defaults_may_be_an_application(project: Project) -> None:
    project(run="def app(environ=None, start_response=None):\n    return [b'ok']\n")
    assert answer("run:app") == [b"ok"]
