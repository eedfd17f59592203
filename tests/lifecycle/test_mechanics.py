"""What a server does to its own processes and files: owners, modes, pid files, the duties of PID 1."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.server import Kind, Serve, Server, children_of, wait_until
from workers.classes import ALL

Start = Callable[..., Server]

#: A user that every Debian has, and a group that is not its own.
NOBODY, GAMES = 65534, 60

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

#: Who the process is that answers.
WHO = (
    "import json, os\n"
    "def app(environ, start_response):\n"
    "    start_response('200 OK', [('Content-Type', 'application/json')])\n"
    "    return [json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups())]).encode()]\n"
)


@needs_root
@pytest.mark.parametrize("kind", ["bicorn", "gunicorn"])
@pytest.mark.parametrize(("initgroups", "groups"), [([], None), (["--initgroups"], [GAMES])])
def test_workers_give_up_root(serve: Serve, kind: Kind, initgroups: list[str], groups: list[int] | None) -> None:
    # Loaded before the fork: the directory of the test is root's.
    arguments = ("--preload", "-u", "nobody", "-g", "games", *initgroups)
    server = serve("who:app", *arguments, kind=kind, files={"who.py": WHO})
    users, own_groups, others = json.loads(server.get("/").body)
    assert users == [NOBODY] * 3
    assert others == (sorted(os.getgroups()) if groups is None else groups)
    if kind == "bicorn" or not initgroups:  # Gunicorn leaves the group as it is when it sets the others.
        assert own_groups == [GAMES] * 3


@needs_root
def test_a_unix_socket_belongs_to_the_workers_user(start: Start) -> None:
    server = start("hello:app", "--preload", "-u", "nobody", "-g", "games", "-m", "007", "-b", "unix:s.sock")
    status = (server.directory / "s.sock").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, GAMES, 0o770)
    assert server.get("/", address=f"unix:{server.directory}/s.sock").status == 200


@needs_root
def test_workers_that_gave_up_root_follow_a_rotation(serve: Serve, workers_may_enter: Path) -> None:
    logs = [workers_may_enter / name for name in ("error.log", "access.log")]
    files = ("--error-logfile", str(logs[0]), "--access-logfile", str(logs[1]))
    server = serve("hello:app", "--preload", "-u", "nobody", "-g", "games", *files, bind="unix:s.sock", wait=False)
    address = f"unix:{server.directory}/s.sock"
    wait_until((server.directory / "s.sock").exists, "the socket")
    assert server.get("/", address=address).status == 200
    (worker,) = server.wait_for_workers(1)
    for log in logs:
        log.rename(f"{log}.1")
    server.signal(signal.SIGUSR1)
    wait_until(lambda: all(log.exists() for log in logs), "new files")
    assert [(log.stat().st_uid, log.stat().st_gid) for log in logs] == [(NOBODY, GAMES)] * 2
    wait_until(lambda: writers_of(logs[0]) >= {server.pid, worker}, "all processes at the new file")
    assert server.get("/", address=address).status == 200
    wait_until(lambda: "GET / " in logs[1].read_text(), "the access line in the new file")
    assert "Cannot reopen" not in "".join(file.read_text() for file in workers_may_enter.iterdir())


@needs_root
@pytest.mark.parametrize("worker_class", ALL)
def test_logs_may_be_where_only_root_may_go(serve: Serve, worker_class: str) -> None:
    logs = ("--error-logfile", "error.log", "--access-logfile", "access.log")
    server = serve("hello:app", "--preload", "-k", worker_class, "-u", "nobody", *logs, bind="unix:s.sock", wait=False)
    path = server.directory / "s.sock"  # Below the directory of pytest's own, which others may not enter.
    wait_until(path.exists, "the socket")
    assert server.get("/", address=f"unix:{path}").status == 200
    wait_until(lambda: "GET / " in (server.directory / "access.log").read_text(), "an access line")
    assert server.stop() == 0
    assert "[ERROR]" not in (server.directory / "error.log").read_text()


@pytest.fixture
def workers_may_enter(tmp_path: Path) -> Iterator[Path]:
    """A directory of root's, to which the way is open to others: that to pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def writers_of(path: Path) -> set[int]:
    """The processes that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(link), path.stat()):
                found.add(int(link.parts[2]))
    return found


def test_a_user_that_cannot_be_become_is_named(serve: Serve) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can become anybody")
    server = serve("hello:app", "-u", "0", wait=False)
    assert server.wait_exit() == 3
    assert "may not become user 0" in server.log


def test_a_pid_file_of_another_age_is_stale_whoever_has_the_number_now(start: Start) -> None:
    launcher = "import os, runpy\nos.utime('server.pid', (0, 0))\nrunpy.run_module('bicorn', run_name='__main__')\n"
    files = {"server.pid": f"{os.getpid()}\n", "old.py": launcher}
    server = start("hello:app", "-p", "server.pid", files=files, launcher=("old.py",))
    assert (server.directory / "server.pid").read_text() == f"{server.pid}\n"


# -- PID 1 -----------------------------------------------------------------------------------------

IN_A_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

#: Leaves an orphan behind, which ends as soon as its parent has gone.
ORPHANS = (
    "import os\n"
    "def app(environ, start_response):\n"
    "    ready, go = os.pipe()\n"
    "    if os.fork() == 0:\n"
    "        if os.fork() == 0:\n"
    "            os.close(go)\n"
    "            os.read(ready, 1)\n"
    "        os._exit(0)\n"
    "    os.close(go), os.close(ready), os.wait()\n"
    "    start_response('200 OK', [('Content-Length', '0')])\n"
    "    return []\n"
)


def test_pid_1_reaps_orphans_and_obeys_signals(serve: Serve) -> None:
    if shutil.which("unshare") is None or subprocess.run([*IN_A_NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("namespaces are not permitted here")
    enter = (
        f"import os, sys\nos.execvp('unshare', {IN_A_NAMESPACE} + [sys.executable, '-m', 'bicorn', *sys.argv[1:]])\n"
    )
    server = serve(
        "orphans:app", "--log-level", "debug", launcher=("enter.py",), files={"orphans.py": ORPHANS, "enter.py": enter}
    )
    (arbiter,) = children_of(server.pid)
    server.wait_for_log(r"Listening at: http://127\.0\.0\.1:\d+ \(1\)")
    for _ in range(5):
        assert server.get("/").status == 200
    server.wait_for_log("Reaped unknown child process", count=5)
    wait_until(lambda: zombies_of(arbiter) == [], "the end of the zombies")
    os.kill(arbiter, signal.SIGHUP)
    server.wait_for_log("Handling signal: hup")
    os.kill(arbiter, signal.SIGTERM)
    assert server.wait_exit() == 0


def zombies_of(pid: int) -> list[int]:
    """The children of a process that ended and were not reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] == "Z":
                    found.append(int(entry.name))
    return found
