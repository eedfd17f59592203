"""Precedence, sources and errors of a whole load; the comparison with Gunicorn is in tests/compat."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest

from bicorn import __version__
from bicorn.config import Settings
from bicorn.errors import ConfigError

Load = Callable[..., Settings]


def test_a_later_layer_wins_and_the_value_knows_it(load: Load) -> None:
    sources = []
    arguments: list[str] = []
    files: dict[str, str] = {}
    environ: dict[str, str] = {}

    def note() -> None:
        settings = load(*arguments, files=files, **environ)
        sources.append((settings.workers, str(settings.source_of("workers"))))

    note()
    environ["WEB_CONCURRENCY"] = "2"
    note()
    files["gunicorn.conf.py"] = "workers = 3"
    note()
    environ["GUNICORN_CMD_ARGS"] = "--workers 4"
    note()
    environ["BICORN_CMD_ARGS"] = "-w 5"
    note()
    arguments += ["-w", "6"]
    note()
    assert sources == [
        (1, "default"),
        (2, "environment variable WEB_CONCURRENCY"),
        (3, "gunicorn.conf.py, line 1"),
        (4, "--workers in GUNICORN_CMD_ARGS"),
        (5, "--workers in BICORN_CMD_ARGS"),
        (6, "--workers"),
    ]


def test_the_environment_gives_defaults(load: Load) -> None:
    settings = load(PORT="81", FORWARDED_ALLOW_IPS="10.0.0.0/8", SENDFILE="no", WEB_CONCURRENCY="auto")
    assert settings.bind == ["0.0.0.0:81"]
    assert settings.forwarded_allow_ips == ["10.0.0.0/8"]
    assert settings.sendfile is False
    assert "usable CPU" in str(settings.source_of("workers"))


def test_an_empty_variable_is_unset_but_trusting_nobody_is_not(load: Load) -> None:
    settings = load(PORT="", WEB_CONCURRENCY="", FORWARDED_ALLOW_IPS="")
    assert settings.bind == ["127.0.0.1:8000"]
    assert settings.workers == 1
    assert settings.forwarded_allow_ips == []


def test_none_in_a_file_leaves_what_was_there(load: Load) -> None:
    settings = load(files={"bicorn.conf.py": "sendfile = None\nloglevel = None\npidfile = None"}, SENDFILE="0")
    assert settings.sendfile is False
    assert settings.loglevel == "info"
    assert settings.pidfile is None


def test_sendfile_can_be_turned_on_over_the_environment(load: Load) -> None:
    assert load(files={"bicorn.conf.py": "sendfile = True"}, SENDFILE="0").sendfile is True


def test_the_application_is_the_first_argument_else_the_files(load: Load) -> None:
    files = {"bicorn.conf.py": "wsgi_app = 'file:app'"}
    assert load("run:app", files=files).app_uri == "run:app"
    assert load("run:app").proc_name == "run:app"
    assert load("run:app", "-n", "name").proc_name == "name"
    assert load().app_uri == "file:app"
    assert load().require_app_uri() == "file:app"
    assert load(files={"bicorn.conf.py": ""}).app_uri is None


def test_a_server_without_an_application_says_how_to_name_one(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"No application module specified.*wsgi_app"):
        load().require_app_uri()


def test_what_has_no_effect_is_warned_of(load: Load, warnings: list[str]) -> None:
    load("run:app", "more", GUNICORN_CMD_ARGS="theirs:app", BICORN_CMD_ARGS="ours:app")
    assert warnings == [
        "'more' on the command line has no effect: 'run:app' is the application",
        "'theirs:app' in GUNICORN_CMD_ARGS has no effect: the command line or wsgi_app names the application",
        "'ours:app' in BICORN_CMD_ARGS has no effect: the command line or wsgi_app names the application",
    ]


def test_an_unknown_log_level_is_info_and_said_so(load: Load, warnings: list[str]) -> None:
    settings = load("--log-level", "warn")
    assert settings.loglevel == "info"
    assert warnings == [
        "loglevel (--log-level) was 'warn', none of debug, info, warning, error, critical; info is used"
    ]
    assert load("--log-level", "DEBUG").loglevel == "DEBUG"


@pytest.mark.parametrize(
    ("argv", "file", "environ", "message"),
    [
        ([], "\ntimeout = 'abc'", {}, "timeout = 'abc' (bicorn.conf.py, line 2) is not allowed; it has to be a whole number, 0 or more"),
        (["-t", "-1"], "", {}, "timeout = -1 (--timeout) is not allowed; it has to be a whole number, 0 or more"),
        ([], "", {"WEB_CONCURRENCY": "many"}, "workers = 'many' (environment variable WEB_CONCURRENCY) is not allowed; it has to be a whole number, 0 or more, or \"auto\""),
        ([], "", {"GUNICORN_CMD_ARGS": "--header-map x"}, "header_map = 'x' (--header-map in GUNICORN_CMD_ARGS) is not allowed; it has to be one of 'drop', 'refuse', 'dangerous'"),
        (["-u", "nobody here"], "", {}, "user = 'nobody here' (--user) is not allowed: there is no such user; it has to be a user id or the name of a user"),
        ([], "bind = 8000", {}, "bind = 8000 (bicorn.conf.py, line 1) is not allowed; it has to be a string or a list of strings"),
        (["-w", "3"], "workers = 1.5", {}, "workers = 1.5 (bicorn.conf.py, line 1) is not allowed; it has to be a whole number, 0 or more, or \"auto\""),
        ([], "def on_exit(): pass", {}, 'on_exit = <on_exit()> (bicorn.conf.py, line 1) is not allowed: it cannot be called with its arguments; it has to be a callable that takes (server), or its path "package.module.name"'),
        ([], "pidfile = 1", {}, "pidfile = 1 (bicorn.conf.py, line 1) is not allowed: it is of type int; it has to be a string, or None"),
        ([], "", {"BICORN_CMD_ARGS": "'open"}, "BICORN_CMD_ARGS = \"'open\" (environment variable BICORN_CMD_ARGS) cannot be split into arguments: No closing quotation; quote it as for a shell"),
    ],
)  # fmt: skip
def test_an_error_names_the_setting_the_value_the_source_and_what_is_allowed(
    load: Load, argv: list[str], file: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*argv, files={"bicorn.conf.py": file}, **environ)
    assert str(caught.value) == message


def test_a_long_value_is_cut_in_the_error(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(files={"bicorn.conf.py": "timeout = 'x' * 10_000"})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("argv", "environ", "words"),
    [
        (["--nothing"], {}, "unrecognized arguments: --nothing\n"),
        (["--timout=3"], {}, "unrecognized arguments: --timout=3 (did you mean --timeout?)\n"),
        (["-w", "2.5"], {}, "argument -w/--workers: invalid worker count value: '2.5'"),
        (["-m", "9x"], {}, "argument -m/--umask: invalid mode value: '9x'"),
        ([], {"GUNICORN_CMD_ARGS": "-t x"}, "in GUNICORN_CMD_ARGS: argument -t/--timeout: invalid int value: 'x'"),
        (
            [],
            {"BICORN_CMD_ARGS": "--body-timeout x"},
            "in BICORN_CMD_ARGS: argument --body-timeout: invalid float value",
        ),
    ],
)
def test_a_command_line_that_cannot_be_parsed_is_a_usage_error(
    load: Load, argv: list[str], environ: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        load(*argv, **environ)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_help_and_version_exit_with_0(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("-v", "--version"):
        with pytest.raises(SystemExit, match="0"):
            load(flag)
        assert capsys.readouterr().out.strip() == f"bicorn (version {__version__})"
    with pytest.raises(SystemExit, match="0"):
        load("-h")
    out = capsys.readouterr().out
    assert "usage: bicorn [OPTIONS] [APP_MODULE]" in out
    assert "--limit-request-field_size" in out


def test_help_says_what_can_be_given(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        load("--help")
    out = " ".join(capsys.readouterr().out.split())
    assert "MODULE:NAME (run:app), or MODULE:FACTORY()" in out
    assert "--asgi-loop {auto,asyncio,uvloop} The event loop" in out
    assert "--reload-engine {auto,poll,watchfiles,inotify} How" in out
    assert "The class of the workers: sync, gthread, gevent, eventlet, tornado or asgi," in out
    assert "aborted and replaced [30 seconds]" in out
    assert "before it drains [0 bytes]" in out
    assert "run the application [1]" in out
    assert "HOST:PORT or unix://PATH (not in this version) [None]" in out
    assert "The file of the certificate (only with -k tornado) [None]" in out


def test_flags_of_the_guide(load: Load) -> None:
    settings = load(
        *shlex.split("--workers 3 --bind 0.0.0.0:8000 -k sync --timeout 60 --keep-alive 5 --max-requests 1000"),
        *shlex.split("--max-requests-jitter 50 --preload --log-level debug run:app"),
    )
    assert (settings.workers, settings.bind, settings.worker_class) == (3, ["0.0.0.0:8000"], "sync")
    assert (settings.timeout, settings.keepalive, settings.max_requests) == (60, 5, 1000)
    assert (settings.max_requests_jitter, settings.preload_app, settings.app_uri) == (50, True, "run:app")


def test_our_own_flags(load: Load) -> None:
    settings = load(*shlex.split("--body-buffer-size 10 --header-timeout 1.5 --limit-request-body 99"))
    assert (settings.body_buffer_size, settings.header_timeout, settings.limit_request_body) == (10, 1.5, 99)
