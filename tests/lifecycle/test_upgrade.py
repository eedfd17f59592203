"""The binary upgrade: a new arbiter beside the old one, by hand (USR2) and by itself, with nothing lost."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.gate import Gate
from harness.load import load
from harness.server import Serve, Server, children_of, is_alive, wait_until

Start = Callable[..., Server]
STARTED = r"Started the new arbiter \(pid: (\d+)\)"
READY = r"Upgrade: the workers of the new arbiter \(pid \d+\) are ready"
#: The automatic upgrade is called from a hook here; bicornctl calls the same.
AUTOMATIC = "def nworkers_changed(server, new, old):\n    if new == 2:\n        server.upgrade()\n"


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
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()


@pytest.fixture
def beside() -> Iterator[list[int]]:
    """Pids of new arbiters, which end with the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if is_alive(pid):
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda pid=pid: not is_alive(pid), "the end of a new arbiter")  # type: ignore[misc]  # bound now


def begin(server: Server, beside: list[int], count: int = 1) -> int:
    """USR2; give the new arbiter's pid when its workers are ready."""
    server.signal(signal.SIGUSR2)
    beside.append(int(server.wait_for_log(STARTED, count=count)[1]))
    server.wait_for_log(READY, count=count)
    return beside[-1]


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:s.sock"])
def test_a_new_arbiter_takes_over_under_load(start: Start, beside: list[int], bind: str) -> None:
    files = {"mine.py": app_saying("old")}
    server = start("mine:app", "-w", "2", "-b", bind, "-p", "server.pid", files=files)
    pidfile = server.directory / "server.pid"
    with load(server) as traffic:
        replace(server.directory / "mine.py", app_saying("new"))
        new = begin(server, beside)
        assert (pidfile.read_text(), pidfile.with_suffix(".pid.2").read_text()) == (f"{server.pid}\n", f"{new}\n")
        traffic.wait_for(20, body=b"old")
        traffic.wait_for(20, body=b"new")
        assert server.stop() == 0
        wait_until(lambda: pidfile.exists() and pidfile.read_text() == f"{new}\n", "the pid file's new content")
        traffic.wait_for(50, body=b"new")
    assert traffic.failures == []
    assert "Master has been promoted." in server.log
    assert not pidfile.with_suffix(".pid.2").exists()


@pytest.mark.parametrize("more", [(), ("--preload",)])
def test_workers_started_after_the_promotion_have_the_plain_title(
    start: Start, beside: list[int], more: tuple[str, ...]
) -> None:
    server = start("hello:app", "-b", "unix:s.sock", "--name", "shop", *more)
    new = begin(server, beside)
    assert title(new) == "bicorn: master [shop.2]"
    assert server.stop() == 0
    wait_until(lambda: title(new) == "bicorn: master [shop]", "the title of the arbiter")
    (old,) = (pid for pid in children_of(new) if title(pid) == "bicorn: worker [shop.2]")
    os.kill(old, signal.SIGTERM)

    def successor() -> bool:
        return old not in children_of(new) and "bicorn: worker [shop]" in map(title, children_of(new))

    wait_until(successor, "a worker with the title of the arbiter")
    assert not any(title(pid).endswith(".2]") for pid in children_of(new))


def title(pid: int) -> str:
    """What ps shows of the process."""
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


def test_the_upgrade_is_rolled_back_by_ending_the_new_arbiter(start: Start, beside: list[int]) -> None:
    server = start("hello:app", "-b", "unix:s.sock", "-p", "server.pid")
    with load(server) as traffic:
        new = begin(server, beside)
        os.kill(new, signal.SIGTERM)
        server.wait_for_log(rf"Upgrade undone: the new arbiter \(pid {new}\) exited with code 0; this one serves on")
        traffic.wait_for(50)
        again = begin(server, beside, count=2)
        assert again != new
    assert traffic.failures == []
    assert (server.directory / "server.pid").read_text() == f"{server.pid}\n"


def test_a_new_arbiter_that_cannot_boot_changes_nothing(start: Start) -> None:
    server = start("mine:app", files={"mine.py": app_saying("old")})
    assert server.get("/").body == b"old"
    old = server.wait_for_workers(1)
    replace(server.directory / "mine.py", "raise RuntimeError('no database')\n")
    server.signal(signal.SIGUSR2)
    server.wait_for_log(r"Upgrade undone: the new arbiter \(pid \d+\) exited with code 3; this one serves on")
    assert "no database" in server.log
    assert server.get("/").body == b"old"
    assert server.wait_for_workers(1) == old


def test_there_is_one_upgrade_at_a_time(start: Start, beside: list[int]) -> None:
    server = start("hello:app")
    new = begin(server, beside)
    server.signal(signal.SIGUSR2)
    server.wait_for_log(rf"USR2 is ignored: a new arbiter \(pid {new}\) is there already")
    os.kill(new, signal.SIGUSR2)
    server.wait_for_log(rf"USR2 is ignored: this arbiter is about to replace another \(pid {server.pid}\)")


def test_a_daemon_drains_with_winch_and_comes_back_with_hup(start: Start, beside: list[int]) -> None:
    arguments = ("--daemon", "-p", "d.pid", "--log-file", "d.log", "-b", "unix:d.sock", "-w", "2")
    starter = start("mine:app", *arguments, files={"mine.py": app_saying("old")}, wait=False)
    directory = starter.directory
    pidfile, log = directory / "d.pid", directory / "d.log"
    pid = wait_until(lambda: int(pidfile.read_text()) if pidfile.exists() else 0, "the daemon's pid file")
    beside.append(pid)
    wait_until(lambda: len(children_of(pid)) == 2, "its workers")
    with load(f"unix:{directory / 'd.sock'}") as traffic:
        replace(directory / "mine.py", app_saying("new"))
        os.kill(pid, signal.SIGUSR2)
        new = int(wait_until(lambda: re.search(STARTED, log.read_text()), "the new arbiter")[1])  # type: ignore[index]  # found
        wait_until(lambda: re.search(READY, log.read_text()), "its workers")
        os.kill(pid, signal.SIGWINCH)
        wait_until(lambda: children_of(pid) == [new], "the end of the old workers")
        traffic.wait_for(50, body=b"new")
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: len(children_of(pid)) == 3, "old workers again")
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not is_alive(new), "the end of the new arbiter")
        traffic.wait_for(50)
    assert traffic.failures == []


def test_by_itself_the_old_arbiter_retires_when_the_new_workers_are_ready(start: Start, beside: list[int]) -> None:
    server = start("mine:app", config=AUTOMATIC, files={"mine.py": app_saying("old")})
    server.get("/")
    with load(server) as traffic:
        replace(server.directory / "mine.py", app_saying("new"))
        server.signal(signal.SIGTTIN)
        beside.append(int(server.wait_for_log(STARTED)[1]))
        assert server.wait_exit() == 0
        traffic.wait_for(50, body=b"new")
        wait_until(lambda: "Master has been promoted." in server.log, "the promotion")
    assert traffic.failures == []


def test_by_itself_an_upgrade_that_is_too_slow_is_rolled_back(start: Start, gate: Gate) -> None:
    arguments = ("--upgrade-timeout", "1.5")
    server = start("mine:app", *arguments, config=AUTOMATIC, files={"mine.py": app_saying("old")}, env=gate.env)
    server.get("/")
    waiting = "import os\nos.read(os.open(os.environ['GATE'] + '/release', os.O_RDONLY), 1)\n"
    with load(server) as traffic:
        server.signal(signal.SIGTTIN)
        replace(server.directory / "mine.py", waiting + app_saying("new"))
        server.wait_for_log(r"The upgrade is rolled back: the new arbiter \(pid \d+\) was not ready in time")
        server.wait_for_log("Upgrade undone")
        traffic.wait_for(50, body=b"old")
    assert traffic.failures == []
    assert server.running


def test_pre_exec_runs_before_the_new_program_does(serve: Serve, beside: list[int]) -> None:
    config = "def pre_exec(server):\n    print('about to exec', server.pid, server.reexec_pid, flush=True)\n"
    server = serve("hello:app", config=config)
    begin(server, beside)
    server.wait_for_log(f"about to exec {server.pid} 0", stream="stdout")


#: What systemd does: descriptor 3, LISTEN_FDS, and LISTEN_PID of the very process that runs.
ACTIVATED = (
    "import os, runpy, sys\n"
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())) if 'GUNICORN_PID' not in os.environ else None\n"
    "os.dup2(int(os.environ['GIVEN']), 3, inheritable=True) if 'GUNICORN_PID' not in os.environ else None\n"
    "runpy.run_module('bicorn', run_name='__main__')\n"
)


def test_under_systemd_the_sockets_and_the_main_process_are_handed_on(serve: Serve, beside: list[int]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bicorn-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as given,
    ):
        manager.bind(f"{directory}/notify")
        manager.settimeout(20)
        host, port = given.getsockname()
        env = {"NOTIFY_SOCKET": f"{directory}/notify", "GIVEN": str(given.fileno())}
        server = serve("hello:app", env=env, pass_fds=(given.fileno(),), launcher=("-c", ACTIVATED), bind=None)
        with load(f"http://{host}:{port}") as traffic:
            new = begin(server, beside)
            server.signal(signal.SIGTERM)
            said: list[str] = []
            while not any("MAINPID" in text for text in said):
                said.append(manager.recv(4096).decode())
            assert said[-1] == f"MAINPID={new}"
            assert not any("STOPPING" in text for text in said)
            assert server.wait_exit() == 0
            traffic.wait_for(50)
        assert traffic.failures == []
