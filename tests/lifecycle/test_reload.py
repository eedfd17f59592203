"""SIGHUP: new code and configuration take over when they work, and change nothing when they do not."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.load import load
from harness.server import Serve, Server, wait_until

Start = Callable[..., Server]


def app_saying(text: str) -> str:
    """The source of an application whose body is the text."""
    return (
        "def app(environ, start_response):\n"
        f"    start_response('200 OK', [('Content-Length', '{len(text)}')])\n"
        f"    return [b'{text}']\n"
    )


def replace(path: Path, text: str) -> None:
    """Write a source file so that the import system sees a change even within one tick of its clock."""
    path.write_text(text)
    cache = path.parent / "__pycache__"
    for compiled in cache.glob(f"{path.stem}.*.pyc") if cache.exists() else ():
        compiled.unlink()


def test_new_code_is_served(start: Start) -> None:
    server = start("mine:app", "-w", "2", "--log-level", "debug", files={"mine.py": app_saying("old")})
    old = server.wait_for_ready(2)
    assert server.get("/").body == b"old"
    replace(server.directory / "mine.py", app_saying("new"))
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=old)
    assert server.get("/").body == b"new"
    server.wait_for_log("Handling signal: hup")
    server.wait_for_log("Hang up: Master")


def test_the_old_worker_serves_until_the_new_one_is_ready(start: Start, gate: Gate) -> None:
    server = start("mine:app", files={"mine.py": app_saying("old")}, env=gate.env)
    assert server.get("/").body == b"old"
    (old,) = server.wait_for_workers(1)
    waiting = "import os\nos.read(os.open(os.environ['GATE'] + '/release', os.O_RDONLY), 1)\n"
    replace(server.directory / "mine.py", waiting + app_saying("new"))
    server.signal(signal.SIGHUP)
    server.wait_for_log("Booting worker with pid", count=2)
    assert server.get("/").body == b"old"
    # The arbiter is not blocked meanwhile.
    server.signal(signal.SIGUSR1)
    server.wait_for_log("Handling signal: usr1")
    gate.release()
    server.wait_for_workers(1, without=[old])
    assert server.get("/").body == b"new"


def test_a_request_in_flight_is_answered_by_the_old_worker(start: Start, gate: Gate) -> None:
    server = start("gated:app", env=gate.env)
    (old,) = server.wait_for_workers(1)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n")
        gate.wait_started()
        server.signal(signal.SIGHUP)
        server.wait_for_log("Booting worker with pid", count=2)
        gate.release()
        assert AnswerReader(sock).read_answer().body == b"done"
    server.wait_for_workers(1, without=[old])


@pytest.mark.parametrize("mode", ["all", "rolling"])
def test_a_reload_under_load_loses_nothing(start: Start, mode: str) -> None:
    server = start("mine:app", "-w", "3", "--reload-mode", mode, files={"mine.py": app_saying("old")})
    old = server.wait_for_workers(3)
    with load(server) as traffic:
        replace(server.directory / "mine.py", app_saying("new"))
        server.signal(signal.SIGHUP)
        server.wait_for_workers(3, without=old)
        traffic.wait_for(50, body=b"new")
    assert traffic.failures == []
    assert traffic.bodies[b"old"] > 0


def test_a_rolling_reload_adds_one_process_at_the_most(start: Start, gate: Gate) -> None:
    server = start(
        "mine:app",
        "-w",
        "3",
        "--reload-mode",
        "rolling",
        "--log-level",
        "debug",
        files={"mine.py": app_saying("old")},
        env=gate.env,
    )
    old = server.wait_for_ready(3)
    waiting = "import os\nos.read(os.open(os.environ['GATE'] + '/release', os.O_RDONLY), 1)\n"
    replace(server.directory / "mine.py", waiting + app_saying("new"))
    server.signal(signal.SIGHUP)
    for number in range(1, 4):
        server.wait_for_log("Booting worker with pid", count=3 + number)
        # It boots, and until it is ready nothing moves: there are three that serve, and it.
        living = server.wait_for_workers(4)
        assert len(set(living) - set(old)) == number
        gate.release()
    server.wait_for_workers(3, without=old)
    assert server.get("/").body == b"new"


@pytest.mark.parametrize(
    "first", ["", "import signal\nsignal.signal(signal.SIGABRT, signal.SIG_IGN)\n"], ids=["", "killed"]
)
def test_a_worker_that_boots_too_slowly_ends_the_reload(start: Start, gate: Gate, first: str) -> None:
    server = start("mine:app", "--boot-timeout", "1", files={"mine.py": app_saying("old")}, env=gate.env)
    assert server.get("/").body == b"old"
    old = server.wait_for_workers(1)
    waiting = (
        "import os\ndef connect():\n    os.read(os.open(os.environ['GATE'] + '/release', os.O_RDONLY), 1)\nconnect()\n"
    )
    replace(server.directory / "mine.py", first + waiting + app_saying("new"))
    server.signal(signal.SIGHUP)
    server.wait_for_log(r"WORKER TIMEOUT \(pid:\d+\): not ready within 1 s \(boot_timeout\)")
    server.wait_for_log(r"in connect")  # where it hung
    server.wait_for_log("Reload failed; the workers of before go on serving. worker .* was not ready within 1 s")
    assert server.wait_for_workers(1) == old
    assert server.get("/").body == b"old"


BROKEN = {
    "syntax": "def\n",
    "raises": "raise RuntimeError('no database')\n",
    "no app": "other = 1\n",
    "exits": "import sys\nsys.exit(0)\n",
    "dies": "import os\nos.kill(os.getpid(), 9)\n",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN.keys())
def test_broken_code_leaves_the_old_workers_serving(start: Start, source: str) -> None:
    server = start("mine:app", "-w", "2", "--log-level", "debug", files={"mine.py": app_saying("old")})
    old = server.wait_for_ready(2)
    replace(server.directory / "mine.py", source)
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; the workers of before go on serving")
    assert server.wait_for_workers(2) == old
    assert server.get("/").body == b"old"
    replace(server.directory / "mine.py", app_saying("mended"))
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=old)
    assert server.get("/").body == b"mended"
    assert server.stop() == 0


BROKEN_CONFIG = {
    "syntax": "def\n",
    "raises": "1 / 0\n",
    "value": "timeout = 'long'\n",
    "exits": "import sys\nsys.exit(3)\n",
    "hook raises": "def on_reload(server):\n    raise ValueError('no')\n",
    "address in use": "bind = ['127.0.0.1:{port}', '127.0.0.1:{port}']\n",
}


@pytest.mark.parametrize("config", BROKEN_CONFIG.values(), ids=BROKEN_CONFIG.keys())
def test_a_broken_configuration_leaves_the_old_workers_serving(start: Start, config: str) -> None:
    good = "workers = 2\nbind = '127.0.0.1:0'\nraw_env = ['COLOUR=green']\n"
    server = start("hello:app", "--log-level", "debug", config=good)
    old = server.wait_for_ready(2)
    address = server.addresses[0]
    file = server.directory / "server.conf.py"
    replace(file, good + config.format(port=server.port))
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; the workers of before go on serving")
    assert server.wait_for_workers(2) == old
    assert server.get("/", address=address).status == 200
    replace(file, good.replace("2", "1", 1))
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, without=old)
    assert server.get("/", address=address).status == 200


def test_a_worker_class_that_cannot_be_loaded_changes_nothing(serve: Serve) -> None:
    server = serve("hello:app", "--log-level", "debug", config="worker_class = 'sync'\n")
    old = server.wait_for_ready(1)
    replace(server.directory / "server.conf.py", "worker_class = 'nowhere.Worker'\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; the workers of before go on serving")
    assert server.wait_for_workers(1) == old
    assert server.get("/").status == 200


def test_settings_and_variables_change(start: Start) -> None:
    app = "import os\n" + app_saying("x").replace("[b'x']", "[os.environ.get('COLOUR', '-')[:1].encode()]")
    config = "workers = {workers}\nraw_env = [{env}]\n"
    server = start("mine:app", config=config.format(workers=1, env="'COLOUR=green'"), files={"mine.py": app})
    assert server.get("/").body == b"g"
    old = server.wait_for_workers(1)
    replace(server.directory / "server.conf.py", config.format(workers=2, env=""))
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=old)
    assert server.get("/").body == b"-"


def test_the_server_moves_to_another_address(start: Start) -> None:
    server = start("hello:app", config="bind = ['unix:a.sock', 'unix:b.sock']\n")
    old = server.wait_for_workers(1)
    file = server.directory / "server.conf.py"
    replace(file, "bind = ['unix:b.sock', 'unix:c.sock']\n")
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, without=old)
    assert server.addresses == ["unix:b.sock", "unix:c.sock"]
    for name in ("b.sock", "c.sock"):
        assert server.get("/", address=f"unix:{os.path.relpath(server.directory / name)}").status == 200
    assert not (server.directory / "a.sock").exists()
    server.stop()
    assert not (server.directory / "b.sock").exists() and not (server.directory / "c.sock").exists()


def test_moving_to_another_address_loses_nothing_on_the_one_that_stays(start: Start) -> None:
    server = start("hello:app", "-w", "2", config="bind = ['unix:a.sock', 'unix:b.sock']\n")
    old = server.wait_for_workers(2)
    with load(f"unix:{os.path.relpath(server.directory / 'b.sock')}") as traffic:
        replace(server.directory / "server.conf.py", "bind = ['unix:b.sock', 'unix:c.sock']\n")
        server.signal(signal.SIGHUP)
        server.wait_for_workers(2, without=old)
        traffic.wait_for(50)
    assert traffic.failures == []
    assert server.get("/", address=f"unix:{os.path.relpath(server.directory / 'c.sock')}").status == 200


def test_a_second_hup_overtakes_a_reload_that_is_not_ready(start: Start, gate: Gate) -> None:
    server = start("mine:app", files={"mine.py": app_saying("one")}, env=gate.env)
    server.get("/")
    (old,) = server.wait_for_workers(1)
    waiting = "import os\nos.read(os.open(os.environ['GATE'] + '/release', os.O_RDONLY), 1)\n"
    replace(server.directory / "mine.py", waiting + app_saying("two"))
    server.signal(signal.SIGHUP)
    server.wait_for_log("Booting worker with pid", count=2)
    second = server.worker_pids()
    replace(server.directory / "mine.py", app_saying("three"))
    server.signal(signal.SIGHUP)
    server.wait_for_log("Booting worker with pid", count=3)
    gate.release(2)
    server.wait_for_workers(1, without=[old, *second])
    assert server.get("/").body == b"three"


def test_a_hup_that_fails_takes_back_the_one_that_it_overtook(start: Start, gate: Gate) -> None:
    server = start("mine:app", config="workers = 1\n", files={"mine.py": app_saying("one")}, env=gate.env)
    assert server.get("/").body == b"one"
    old = server.wait_for_workers(1)
    waiting = "import os\nos.read(os.open(os.environ['GATE'] + '/release', os.O_RDONLY), 1)\n"
    replace(server.directory / "mine.py", waiting + app_saying("two"))
    replace(server.directory / "server.conf.py", "errorlog = 'two.log'\n")
    server.signal(signal.SIGHUP)
    log = server.directory / "two.log"
    wait_until(lambda: log.exists() and "Booting worker" in log.read_text(), "the worker of the reload")
    replace(server.directory / "server.conf.py", "def\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; the workers of before go on serving")
    gate.release()
    assert server.wait_for_workers(1) == old
    assert server.get("/").body == b"one"


def test_a_reload_that_fails_ends_nothing_though_the_directory_of_before_is_gone(start: Start) -> None:
    server = start("mine:app", config="workers = 1\n", files={"mine.py": app_saying("one")})
    assert server.get("/").body == b"one"
    (first,) = server.wait_for_workers(1)
    config, gone = server.directory / "server.conf.py", server.directory / "gone"
    gone.mkdir()
    replace(config, "pidfile = 'gone/server.pid'\nerrorlog = 'gone/error.log'\n")
    server.signal(signal.SIGHUP)
    old = server.wait_for_workers(1, without=[first])
    shutil.rmtree(gone)
    replace(config, "pidfile = 'server.pid'\n")
    replace(server.directory / "mine.py", "raise RuntimeError('broken')\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log(r"Cannot go back to the log of before: .*gone/error\.log")
    server.wait_for_log(r"Cannot write the pid file of before: .*gone/server\.pid")
    server.wait_for_log("Reload failed; the workers of before go on serving")
    assert server.wait_for_workers(1) == old
    assert server.get("/").body == b"one"
    replace(server.directory / "mine.py", app_saying("two"))
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, without=old)
    assert server.get("/").body == b"two"
    assert (server.directory / "server.pid").read_text() == f"{server.pid}\n"
    assert server.stop() == 0
    assert "Unhandled exception" not in server.log


def test_changed_sources_are_noticed_with_reload(start: Start) -> None:
    server = start("mine:app", "--reload", files={"mine.py": app_saying("old")})
    assert server.get("/").body == b"old"
    (first,) = server.wait_for_workers(1)
    replace(server.directory / "mine.py", "def\n")
    server.wait_for_log("Worker reloading: .*mine.py modified")
    (second,) = server.wait_for_workers(1, without=[first])
    broken = server.get("/")
    assert broken.status == 500 and b"SyntaxError" in broken.body
    replace(server.directory / "mine.py", app_saying("new"))
    server.wait_for_workers(1, without=[first, second])
    wait_until(lambda: server.get("/").body == b"new", "the new code")
