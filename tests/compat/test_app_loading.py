"""What a server does with an application that it cannot load: Gunicorn's exit code, our words."""

from __future__ import annotations

import pytest

from harness.server import Kind, Serve, Server, wait_until

FILES = {
    "good.py": "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"
    "def factory(a):\n    return app\ndef bad():\n    raise TypeError('inner')\ndef none():\n    pass\nnumber = 3\n",
    "raising.py": "raise ValueError('boom')\n",
    "importing.py": "import not_there\n",
    "syntax.py": "x = (\n",
}
CASES = [
    ("missing:app", 3, "there is no module 'missing'"),
    ("raising:app", 3, "ValueError: boom"),
    ("importing:app", 3, "ModuleNotFoundError: No module named 'not_there'"),
    ("syntax:app", 3, "SyntaxError"),
    ("good.py", 3, "Did you mean 'good:app'?"),
    ("good:bad()", 3, "TypeError: inner"),
    ("good:nope", 4, "has no attribute 'nope'"),
    ("good:number", 4, "must be callable"),
    ("good:factory()", 4, "missing 1 required positional argument"),
    ("good:factory(x)", 4, "not a literal"),
    ("good:none()", 4, "returned None"),
]


@pytest.mark.parametrize("kind", ["bicorn", "gunicorn"])
@pytest.mark.parametrize(("uri", "code", "said"), CASES)
def test_the_exit_code_is_gunicorns(uri: str, code: int, said: str, kind: Kind, serve: Serve) -> None:
    server = serve(uri, kind=kind, files=FILES, wait=False)
    assert server.wait_exit() == code
    if kind == "bicorn":
        assert said in server.log
        assert "importlib" not in server.log
        assert "bicorn/app" not in server.log


@pytest.mark.parametrize("kind", ["bicorn", "gunicorn"])
@pytest.mark.parametrize("flag", ["--preload", "--check-config"])
@pytest.mark.parametrize("uri", ["missing:app", "raising:app", "good:nope"])
def test_the_exit_code_is_1_before_any_worker(uri: str, flag: str, kind: Kind, serve: Serve) -> None:
    assert serve(uri, flag, kind=kind, files=FILES, wait=False).wait_exit() == 1


APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'mended']\n"


@pytest.mark.parametrize("engine", ["poll", "auto"])
def test_under_reload_whatever_the_application_raised_is_shown_until_it_is_mended(engine: str, serve: Serve) -> None:
    files = {"run.py": "from parts import nothing\n" + APP, "parts.py": "def (\n"}
    server = serve("run:app", "--reload", "--reload-engine", engine, files=files)
    shown = server.get("/")
    assert shown.status == 500
    assert b"SyntaxError" in shown.body and b'parts.py", line 1' in shown.body
    write(server, "parts.py", "import not_there\n")
    wait_until(lambda: b"No module named 'not_there'" in answer(server), "the next mistake")
    write(server, "parts.py", "nothing = None\n")
    wait_until(lambda: answer(server) == b"mended", "the mended application")


@pytest.mark.parametrize("kind", ["bicorn", "gunicorn"])
def test_under_reload_a_syntax_error_is_shown_and_the_server_stays(kind: Kind, serve: Serve) -> None:
    server = serve("run:app", "--reload", kind=kind, files={"run.py": "def (\n"})
    shown = server.get("/")
    assert shown.status == 500
    assert b'run.py", line 1' in shown.body and b"SyntaxError" in shown.body
    assert server.running


def write(server: Server, name: str, text: str) -> None:
    (server.directory / name).write_text(text)


def answer(server: Server) -> bytes:
    """What it answers now; nothing while one worker has ended and the next has not begun."""
    try:
        return server.get("/", timeout=5).body
    except (OSError, AssertionError):
        return b""
