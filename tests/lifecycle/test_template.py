"""Workers that are forked from a process that holds the application: preload_app and refork."""

from __future__ import annotations

import functools
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bicorn.arbiter.policy import EARLY_DEATH_S
from harness.gate import Gate
from harness.load import load
from harness.server import Serve, Server, is_alive, wait_until

Start = Callable[..., Server]


def app_saying(text: str) -> str:
    """The source of an application whose body is the text, and the pid of the process that loaded it."""
    return (
        "import os\n"
        f"BODY = b'{text} %d' % os.getpid()\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', str(len(BODY)))])\n"
        "    return [BODY]\n"
    )


def replace(path: Path, text: str) -> None:
    """Write a source file so that the import system sees a change even within one tick of its clock."""
    path.write_text(text)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()


def loader(server: Server) -> int:
    """The process that loaded what a worker serves."""
    return int(server.get("/").body.split()[1])


def parent_of(pid: int) -> int:
    """The parent of a process."""
    return int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def test_workers_share_one_load_and_are_the_arbiters_children(start: Start) -> None:
    server = start("mine:app", "--preload", "-w", "3", files={"mine.py": app_saying("old")})
    workers = server.wait_for_workers(3)
    assert [loader(server)] == server.template_pids()
    assert {parent_of(pid) for pid in workers} == {server.pid}
    os.kill(workers[0], signal.SIGKILL)
    server.wait_for_log(rf"Worker \(pid:{workers[0]}\) was sent SIGKILL!")
    server.wait_for_workers(3, without=workers[:1])
    assert server.stop() == 0


@pytest.mark.parametrize("mode", ["all", "rolling"])
def test_a_reload_loads_the_code_anew_and_loses_nothing(start: Start, mode: str) -> None:
    arguments = ("--preload", "-w", "2", "--reload-mode", mode)
    server = start("mine:app", *arguments, files={"mine.py": app_saying("old")})
    old = server.wait_for_workers(2)
    (template,) = server.template_pids()
    with load(server) as traffic:
        replace(server.directory / "mine.py", app_saying("new"))
        server.signal(signal.SIGHUP)
        server.wait_for_workers(2, without=old)
        wait_until(lambda: not is_alive(template), "the end of the old template")
        new = f"new {loader(server)}".encode()
        traffic.wait_for(50, body=new)
    assert traffic.failures == []


@pytest.mark.parametrize("source", ["def\n", "raise RuntimeError('no database')\n", "other = 1\n"])
def test_broken_code_leaves_the_template_and_its_workers(start: Start, source: str) -> None:
    server = start("mine:app", "--preload", "-w", "2", files={"mine.py": app_saying("old")})
    before = loader(server)
    old = server.wait_for_workers(2)
    replace(server.directory / "mine.py", source)
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; the workers of before go on serving")
    assert server.wait_for_workers(2) == old
    server.signal(signal.SIGTTIN)  # The template of before forks on.
    server.wait_for_workers(3)
    assert loader(server) == before


def test_a_load_that_takes_too_long_ends_the_reload(start: Start, gate: Gate) -> None:
    arguments = ("--preload", "--boot-timeout", "1")
    server = start("mine:app", *arguments, files={"mine.py": app_saying("old")}, env=gate.env)
    server.get("/")
    old = server.wait_for_workers(1)
    waiting = "import os\ndef connect():\n    os.read(os.open(os.environ['GATE'] + '/release', os.O_RDONLY), 1)\n"
    replace(server.directory / "mine.py", waiting + "connect()\n" + app_saying("new"))
    server.signal(signal.SIGHUP)
    server.wait_for_log("Reload failed; .* the application was not loaded within 1 s")
    server.wait_for_log("in connect")
    assert server.wait_for_workers(1) == old
    assert server.get("/").body.startswith(b"old")


def test_a_template_that_dies_is_replaced_and_its_workers_serve_on(start: Start) -> None:
    server = start("mine:app", "--preload", files={"mine.py": app_saying("old")})
    server.get("/")
    workers = server.wait_for_workers(1)
    (template,) = server.template_pids()
    with load(server) as traffic:
        os.kill(template, signal.SIGKILL)
        server.wait_for_log(
            rf"\[ERROR\] Template \(pid:{template}\) was sent SIGKILL! (Perhaps|Not by the arbiter).*\. "
            r"The next worker that is needed has the application loaded anew\.\n"
        )
        server.signal(signal.SIGTTIN)
        assert workers[0] in server.wait_for_workers(2)
        traffic.wait_for(50)
    assert traffic.failures == []


def is_past(moment: float) -> bool:
    """Whether a moment of the monotonic clock is over."""
    return time.monotonic() > moment


def test_templates_that_lived_for_a_while_are_no_crash_loop(start: Start) -> None:
    server = start("mine:app", "--preload", files={"mine.py": app_saying("old")})
    first = server.wait_for_workers(1)
    for count in (1, 2):
        (template,) = server.template_pids()
        # A template that was ready for a second did not die at once.
        wait_until(functools.partial(is_past, time.monotonic() + EARLY_DEATH_S), "a second of its life")
        os.kill(template, signal.SIGKILL)
        server.wait_for_log(rf"Template \(pid:{template}\) was sent SIGKILL!")
        server.signal(signal.SIGTTIN)
        server.wait_for_workers(count + 1)
    assert first[0] in server.worker_pids()
    assert "in a row died at once" not in server.log


def test_the_arbiters_death_ends_template_and_workers(start: Start) -> None:
    server = start("mine:app", "--preload", "-w", "2", files={"mine.py": app_saying("old")})
    server.get("/")
    pids = [*server.wait_for_workers(2), *server.template_pids()]
    server.signal(signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the end of everybody", timeout=5)


def test_hooks_run_where_the_fork_happens(start: Start) -> None:
    config = (
        "import os\n"
        "def pre_fork(server, worker):\n    print('pre', os.getpid(), worker.age, flush=True)\n"
        "def post_fork(server, worker):\n    print('post', worker.pid, os.getppid(), flush=True)\n"
        "def child_exit(server, worker):\n    print('gone', worker.pid, os.getpid(), flush=True)\n"
    )
    server = start("mine:app", "--preload", config=config, files={"mine.py": app_saying("old")})
    server.get("/")
    (worker,) = server.wait_for_workers(1)
    (template,) = server.template_pids()
    server.wait_for_log(f"pre {template} 1", stream="stdout")
    server.wait_for_log(f"post {worker} {server.pid}", stream="stdout")
    server.signal(signal.SIGHUP)
    server.wait_for_log(f"gone {worker} {server.pid}", stream="stdout")


def test_a_warm_worker_becomes_the_template_of_new_ones(serve: Serve) -> None:
    # Requests are counted by our own worker classes; the plain one does not.
    server = serve("mine:app", "-w", "3", "--refork", "20", files={"mine.py": app_saying("old")})
    first = server.wait_for_workers(3)
    with load(server) as traffic:
        warm = int(server.wait_for_log(r"New workers are forked from the template \(pid: (\d+)\)")[1])
        workers = server.wait_for_workers(3, without=first)
        assert warm in first
        body = f"old {warm}".encode()
        traffic.wait_for(50, body=body)
        server.signal(signal.SIGTTIN)
        workers = server.wait_for_workers(4)
        assert {parent_of(pid) for pid in workers} == {server.pid}
    assert traffic.failures == []
    replace(server.directory / "mine.py", app_saying("new"))
    server.signal(signal.SIGHUP)
    server.wait_for_workers(3, without=workers)
    assert re.fullmatch(rb"new \d+", server.get("/").body)
    assert warm not in server.template_pids()
    assert server.stop() == 0
