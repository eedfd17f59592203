"""What a server does with an application that it cannot load: Gunicorn's exit code, our words."""

from __future__ import annotations

import pytest

from harness.server import Kind, Serve

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
