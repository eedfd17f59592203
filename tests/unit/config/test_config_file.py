"""The configuration file: which one, what it says, on which line, and what its errors look like."""

from __future__ import annotations

import os
import py_compile
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from bicorn.config import Settings, load_settings
from bicorn.errors import ConfigError

Load = Callable[..., Settings]


def test_bicorns_file_comes_before_gunicorns(load: Load) -> None:
    assert load(files={"gunicorn.conf.py": "backlog = 1"}).backlog == 1
    settings = load(files={"bicorn.conf.py": "backlog = 2"})
    assert settings.backlog == 2
    assert settings.config == "./bicorn.conf.py"


def test_no_file_is_fine(load: Load) -> None:
    assert load().config is None


@pytest.mark.parametrize(
    ("argv", "environ", "read"),
    [
        (["-c", "a.py"], {"BICORN_CMD_ARGS": "-c b.py", "GUNICORN_CMD_ARGS": "-c c.py"}, "a"),
        ([], {"BICORN_CMD_ARGS": "-c b.py", "GUNICORN_CMD_ARGS": "-c c.py"}, "b"),
        ([], {"GUNICORN_CMD_ARGS": "-c c.py"}, "c"),
        (["-c", "file:a.py"], {}, "a"),
        (["-c", "python:a"], {}, "a"),
        (["-c", "gunicorn-cfg.py"], {}, "dashed"),
        (["-c", "app.conf"], {}, "other extension"),
    ],
)
def test_the_file_is_looked_for_in_order(load: Load, argv: list[str], environ: dict[str, str], read: str) -> None:
    names = {"a.py": "a", "b.py": "b", "c.py": "c", "gunicorn-cfg.py": "dashed", "app.conf": "other extension"}
    files = {file: f"proc_name = {name!r}" for file, name in names.items()}
    assert load(*argv, files=files, **environ).proc_name == read


def test_a_file_runs_as_the_module_config_with_its_name(load: Load, tmp_path: Path) -> None:
    settings = load(files={"bicorn.conf.py": "raw_env = [f'N={__name__}', f'F={__file__}']"})
    assert settings.env == {"N": "__config__", "F": str(tmp_path / "bicorn.conf.py")}


def test_a_file_imports_from_its_project(load: Load) -> None:
    settings = load(
        files={"bicorn.conf.py": "from project_base import *\nbacklog += 1", "project_base.py": "backlog = 7"}
    )
    assert settings.backlog == 8


def test_a_compiled_file_is_read_without_lines(load: Load, tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text("backlog = 9")
    py_compile.compile(str(tmp_path / "source.py"), cfile=str(tmp_path / "compiled.pyc"), doraise=True)
    settings = load("-c", "compiled.pyc")
    assert settings.backlog == 9
    assert str(settings.source_of("backlog")) == "compiled.pyc"


@pytest.mark.parametrize("argv", [[], ["-c", "python:again"]])
def test_a_reload_sees_an_edit_of_the_same_length_at_once(load: Load, argv: list[str]) -> None:
    assert load(*argv, files={"bicorn.conf.py": "backlog = 1", "again.py": "backlog = 1"}).backlog == 1
    # Written within the same second: a cache of byte code would think the file unchanged.
    assert load(*argv, files={"bicorn.conf.py": "backlog = 2", "again.py": "backlog = 22"}).backlog in (2, 22)


def test_a_reload_counts_paths_from_the_start_and_leaves_the_process_where_it_is(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    assert load("--chdir", "sub", "-c", "a.py", files={"a.py": ""}).chdir == str(tmp_path / "sub")
    monkeypatch.chdir(tmp_path / "sub")
    assert load("--chdir", "sub", "-c", "a.py").chdir == str(tmp_path / "sub")
    assert os.getcwd() == str(tmp_path / "sub")


def test_a_reload_works_after_the_working_directory_was_removed(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()
    assert load(files={"bicorn.conf.py": "backlog = 3"}).backlog == 3


# --- on which line ---


LINES = """\
import os
from module_of_lines import umask
timeout = 1
timeout = 2
workers = 3
if os.name == "posix":
    workers = 4
elif os.name == "nt":
    workers = 5
try:
    backlog = 1
except OSError:
    backlog = 2
keepalive: int = 3
(threads, max_requests) = 1, 2
max_requests_jitter = 1
max_requests_jitter += 1
loglevel: str
def on_exit(server):
    graceful_timeout = 99
with open(os.devnull):
    errorlog = "-"
match os.name:
    case "posix":
        accesslog = None
globals()["pidfile"] = "p"
"""


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("timeout", "line 4"),
        ("workers", "line 5 or line 7 or line 9"),
        ("backlog", "line 11 or line 13"),
        ("keepalive", "line 14"),
        ("max_requests", "line 15"),
        ("max_requests_jitter", "line 16 or line 17"),
        ("on_exit", "line 19"),
        ("errorlog", "line 22"),
        ("accesslog", "line 25"),
        ("umask", "line 2"),
    ],
)
def test_a_value_knows_its_lines(load: Load, name: str, place: str) -> None:
    settings = load(files={"bicorn.conf.py": LINES, "module_of_lines.py": "umask = 2"})
    assert str(settings.source_of(name)) == f"bicorn.conf.py, {place}"


def test_a_value_that_no_line_binds_knows_its_file(load: Load) -> None:
    settings = load(files={"bicorn.conf.py": LINES, "module_of_lines.py": "umask = 2"})
    assert str(settings.source_of("pidfile")) == "bicorn.conf.py"
    assert str(settings.source_of("graceful_timeout")) == "default"


def test_a_value_from_a_star_import_knows_the_import(load: Load) -> None:
    settings = load(files={"bicorn.conf.py": "\nfrom star_base import *", "star_base.py": "backlog = 1"})
    assert str(settings.source_of("backlog")) == "bicorn.conf.py, line 2"


# --- misspelt ---


def test_a_misspelt_name_is_warned_of(load: Load, warnings: list[str]) -> None:
    load(files={"bicorn.conf.py": "\nlog_level = 'debug'\nBIND = ':1'\ndef when_redy(server): ...\n"})
    assert warnings == [
        "log_level (bicorn.conf.py, line 2) is not a setting and has no effect; did you mean loglevel?",
        "BIND (bicorn.conf.py, line 3) is not a setting and has no effect; did you mean bind?",
        "when_redy (bicorn.conf.py, line 4) is not a setting and has no effect; did you mean when_ready?",
    ]


def test_names_that_serve_the_file_itself_are_not_warned_of(load: Load, warnings: list[str]) -> None:
    text = """\
    import threading as thread
    import multiprocessing
    from module_of_names import worker
    _timeout = 30
    log_level = "debug"
    loglevel = log_level
    cores = multiprocessing.cpu_count()
    max_workers = 4
    def group_of(x): return x
    class Helper: ...
    """
    load(files={"bicorn.conf.py": textwrap.dedent(text), "module_of_names.py": "worker = 1"})
    assert warnings == []


def test_a_file_cannot_name_another_file(load: Load, warnings: list[str]) -> None:
    assert load(files={"bicorn.conf.py": "config = 'other.py'"}).config == "./bicorn.conf.py"
    assert warnings == ["config (bicorn.conf.py, line 1) has no effect inside a configuration; it was not read"]


# --- errors ---


def test_a_missing_file_is_named_with_who_asked_for_it(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GUNICORN_CMD_ARGS="-c gone.py")
    assert str(caught.value) == (
        f"config = 'gone.py' (--config in GUNICORN_CMD_ARGS) cannot be read: "
        f"No such file or directory ({tmp_path}/gone.py)"
    )


@pytest.mark.parametrize("argv", [["-c", "broken.py"], ["-c", "python:broken"]])
def test_an_exception_in_the_file_is_shown_as_its_author_knows_it(load: Load, argv: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*argv, files={"broken.py": "def f():\n    return 1 / 0\nworkers = f()\n"})
    first, _, trace = str(caught.value).partition("\n\n")
    assert first == f"config = {argv[1]!r} (--config) failed: ZeroDivisionError: division by zero"
    frames = [line for line in trace.splitlines() if line.startswith("  File")]
    path = tmp_path / "broken.py"
    assert frames == [f'  File "{path}", line 3, in <module>', f'  File "{path}", line 2, in f']


@pytest.mark.parametrize("argv", [["-c", "broken.py"], ["-c", "python:broken"]])
def test_a_syntax_error_is_shown_with_its_line_and_no_frames(load: Load, argv: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*argv, files={"broken.py": "workers = 1\nbind = = 2\n"})
    assert "failed: SyntaxError: invalid syntax" in str(caught.value)
    assert f'File "{tmp_path}/broken.py", line 2' in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_missing_module_is_an_error_without_frames(load: Load) -> None:
    with pytest.raises(ConfigError, match="failed: ModuleNotFoundError: No module named 'absent_module'") as caught:
        load("-c", "python:absent_module")
    assert "File" not in str(caught.value)


def test_of_a_long_message_the_first_line_is_the_cause(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"failed: RuntimeError: first\n\nTraceback(.|\n)*first\nsecond$"):
        load(files={"bicorn.conf.py": "raise RuntimeError('first\\nsecond')"})


def test_a_file_that_exits_exits(load: Load) -> None:
    with pytest.raises(SystemExit, match="7"):
        load(files={"bicorn.conf.py": "raise SystemExit(7)"})


def test_the_directory_of_the_start_is_found_without_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("log_level = 'debug'")
    monkeypatch.chdir(tmp_path)
    load_settings([], {})
    assert capsys.readouterr().err == (
        "Warning: log_level (gunicorn.conf.py, line 1) is not a setting and has no effect; did you mean loglevel?\n"
    )
