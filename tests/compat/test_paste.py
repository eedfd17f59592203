"""PasteDeploy files: an application from one, and a server that one starts."""

from __future__ import annotations

import signal

import pytest

from harness.server import Kind, Serve, Server

INI = """\
[DEFAULT]
who = nobody

[app:main]
paste.app_factory = pasted:make
greeting = hello %(who)s

[app:other]
paste.app_factory = pasted:make
greeting = other

[app:broken]
paste.app_factory = pasted:fail

[server:main]
use = egg:bicorn
host = 127.0.0.1
port = 0
workers = 2
"""
LOGGING = """
[loggers]
keys = root, server
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = console
[logger_server]
level = INFO
handlers = console
qualname = gunicorn.error
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = FROM INI %(message)s
"""
APP = """\
def make(global_conf, greeting):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [greeting.encode()]
    return app

def fail(global_conf):
    raise KeyError("the database")
"""
KINDS: tuple[Kind, ...] = ("bicorn", "gunicorn")


def start(serve: Serve, *args: str, ini: str = INI, **options: object) -> Server:
    return serve(None, *args, files={"site.ini": ini, "pasted.py": APP}, **options)  # type: ignore[arg-type]  # passed on


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("args", "body"),
    [
        (("--paste", "site.ini"), b"hello nobody"),
        (("--paste", "site.ini#other"), b"other"),
        (("--paste", "site.ini", "--paste-global", "who=you"), b"hello nobody"),
        (("--paste", "site.ini", "--chdir", "/", "--pythonpath", "."), b"hello nobody"),
    ],
    ids=["main", "section", "global", "chdir"],
)
def test_the_application_comes_from_the_file(serve: Serve, kind: Kind, args: tuple[str, ...], body: bytes) -> None:
    server = start(serve, *args, kind=kind)
    assert server.get("/").body == body


def test_a_variable_that_the_file_does_not_set_is_taken_from_the_command_line(serve: Serve) -> None:
    server = start(serve, "--paste", "site.ini", "--paste-global", "who=you", ini=INI.replace("who = nobody", ""))
    assert server.get("/").body == b"hello you"


def test_the_setting_may_stand_in_a_file(serve: Serve) -> None:
    assert start(serve, config="paste = 'site.ini'").get("/").body == b"hello nobody"


def test_it_is_read_again_at_a_reload(serve: Serve) -> None:
    server = start(serve, "--paste", "site.ini")
    before = server.wait_for_workers(1)
    (server.directory / "site.ini").write_text(INI.replace("nobody", "somebody"))
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, without=before)
    assert server.get("/").body == b"hello somebody"


def test_its_logging_is_the_servers(serve: Serve) -> None:
    server = start(serve, "--paste", "site.ini", ini=INI + LOGGING)
    server.wait_for_log("FROM INI .*Listening at")


def test_a_factory_that_fails_shows_its_traceback(serve: Serve) -> None:
    server = start(serve, "--paste", "site.ini#broken", wait=False)
    assert server.wait_exit() == 3
    assert 'pasted.py", line 8, in fail' in server.log
    assert "Cannot load the PasteDeploy application" in server.log
    assert "load_paste_app" not in server.log


def test_a_file_that_is_not_there_is_named(serve: Serve) -> None:
    server = serve(None, "--paste", "gone.ini", wait=False)
    assert server.wait_exit() == 1
    assert "paste = 'gone.ini' (--paste) is not allowed: there is no file" in server.log


def test_pastedeploy_starts_the_server(serve: Serve) -> None:
    program = (
        "import os\n"
        "from paste.deploy import loadapp, loadserver\n"
        "config = 'config:' + os.path.abspath('site.ini')\n"
        "loadserver(config)(loadapp(config))\n"
    )
    server = serve(
        None, bind=None, launcher=("serve.py",), files={"site.ini": INI, "pasted.py": APP, "serve.py": program}
    )
    assert len(server.wait_for_workers(2)) == 2
    assert server.get("/").body == b"hello nobody"
    assert server.stop() == 0
