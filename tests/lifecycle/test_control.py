"""`bicornctl` and the control socket of a running server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bicorn import __version__
from harness.gate import Gate
from harness.load import load
from harness.server import Serve, Server, is_alive, suspend, wait_until

Ctl = Callable[..., subprocess.CompletedProcess[str]]
NO_ANSWER = 3


@pytest.fixture
def runtime() -> Iterator[Path]:
    """An XDG_RUNTIME_DIR whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="bicorn-") as directory:
        yield Path(directory)


@pytest.fixture
def start(serve: Serve, runtime: Path) -> Callable[..., Server]:
    """Start Bicorn with its control socket below `runtime`."""

    def starter(app: str, *args: str, env: dict[str, str] | None = None, **options: Any) -> Server:
        return serve(app, *args, env={"XDG_RUNTIME_DIR": str(runtime), **(env or {})}, **options)

    return starter


@pytest.fixture
def ctl(runtime: Path) -> Ctl:
    """Run bicornctl as a person would, with the server's XDG_RUNTIME_DIR."""

    def run(*args: str | int | Path, server: Server | None = None) -> subprocess.CompletedProcess[str]:
        which = ["--pid", str(server.pid)] if server is not None else []
        return subprocess.run(
            [sys.executable, "-m", "bicorn.cli.ctl", *map(str, args), *which],
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def has_socket(server: Server, runtime: Path) -> Path:
    """Wait until the server's control socket is there."""
    path = runtime / "bicorn" / f"{server.pid}.ctl"
    wait_until(path.exists, f"{path} is there")
    return path


def report(ctl: Ctl, server: Server) -> dict[str, Any]:
    """What status says, as a program reads it."""
    value = json.loads(ctl("status", "--json", server=server).stdout)
    assert isinstance(value, dict)
    return value


# -- the commands ----------------------------------------------------------------------------------


def test_status_names_workers_and_what_they_do(start: Callable[..., Server], ctl: Ctl, gate: Gate) -> None:
    server = start("gated:app", "-w", "2", "--log-level", "debug", env=gate.env)
    workers = server.wait_for_ready(2)
    with server.connect() as sock:
        sock.sendall(b"GET /report?year=2026 HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        shown = report(ctl, server)
        assert (shown["pid"], shown["phase"], shown["generation"]) == (server.pid, "running", 1)
        assert shown["workers_wanted"] == 2 and shown["listeners"] == server.addresses
        assert shown["last_reload"] is None
        assert [worker["pid"] for worker in shown["workers"]] == workers
        (busy,) = [worker for worker in shown["workers"] if worker["request"]]
        assert busy["request"]["line"] == "GET /report?year=2026" and busy["in_flight"] == 1
        assert all(worker["state"] == "ready" and worker["memory_bytes"] > 2**20 for worker in shown["workers"])
        text = ctl("status", server=server).stdout
        assert "2 of 2 workers ready (sync), generation 1" in text and "GET /report?year=2026 (" in text
        gate.release()
        assert sock.recv(5) == b"HTTP/"
    wait_until(lambda: sum(w["requests"] for w in report(ctl, server)["workers"]) == 1, "the request is counted")


def test_a_reload_is_waited_for(start: Callable[..., Server], ctl: Ctl) -> None:
    server = start("hello:app", "--log-level", "debug")
    before = server.wait_for_ready(1)
    done = ctl("reload", server=server)
    assert (done.returncode, done.stdout) == (0, "Reloaded: 1 new workers serve.\n")
    server.wait_for_workers(1, without=before)
    assert report(ctl, server)["last_reload"]["result"] == "done"
    assert report(ctl, server)["generation"] == 2


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("mine.py", "raise RuntimeError('no such table')", "RuntimeError: no such table"),
        ("server.conf.py", "workers = 'many'", "workers = 'many'"),
    ],
)
def test_a_reload_that_does_not_work_is_an_error(
    start: Callable[..., Server], ctl: Ctl, file: str, text: str, says: str
) -> None:
    server = start("mine:app", "--log-level", "debug", config="", files={"mine.py": "from hello import app"})
    workers = server.wait_for_ready(1)
    (server.directory / file).write_text(text)
    failed = ctl("reload", server=server)
    assert failed.returncode == 1
    assert failed.stderr.startswith("bicornctl: ") and says in failed.stderr
    assert server.worker_pids() == workers and server.get("/").status == 200
    shown = report(ctl, server)["last_reload"]
    assert shown["result"] == "failed" and says in shown["message"]
    as_json = ctl("reload", "--json", server=server)
    assert json.loads(as_json.stdout)["error"]["code"] == "reload-failed"


def test_stop_waits_until_the_server_is_gone(start: Callable[..., Server], ctl: Ctl, gate: Gate) -> None:
    server = start("gated:app", "--log-level", "debug", env=gate.env)
    (worker,) = server.wait_for_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /report HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        slow = ctl("stop", "--timeout", "0.5", server=server)
        assert slow.returncode == NO_ANSWER and "not finished within 0.5 s" in slow.stderr
        refused = ctl("reload", server=server)
        assert refused.returncode == 1 and "the server is being stopped" in refused.stderr
        gate.release()
        assert sock.recv(5) == b"HTTP/"
    assert server.wait_exit() == 0
    assert not is_alive(worker)


def test_stop_quick_does_not_wait_for_requests(start: Callable[..., Server], ctl: Ctl, gate: Gate) -> None:
    server = start("gated:app", "--log-level", "debug", env=gate.env)
    server.wait_for_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /report HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        done = ctl("stop", "--quick", server=server)
    assert (done.returncode, done.stdout) == (0, f"Stopped (the arbiter was {server.pid}).\n")
    assert server.wait_exit() == 0


def test_scale(start: Callable[..., Server], ctl: Ctl) -> None:
    server = start("hello:app", "--log-level", "debug")
    server.wait_for_ready(1)
    done = ctl("scale", 3, server=server)
    assert (done.returncode, done.stdout) == (0, "Workers wanted: 3 (before: 1).\n")
    server.wait_for_workers(3)
    ctl("scale", 2, server=server)
    server.wait_for_workers(2)
    refused = ctl("scale", 0, server=server)
    assert refused.returncode == 1 and "scale: workers has to be a number from 1 to" in refused.stderr


def test_stacks_do_not_stop_a_worker(start: Callable[..., Server], ctl: Ctl, gate: Gate) -> None:
    app = (
        "import threading\n"
        "from gated import app\n"
        "def idle_in_a_thread(): threading.Event().wait()\n"
        "threading.Thread(target=idle_in_a_thread, name='idler', daemon=True).start()\n"
    )
    server = start("mine:app", "--log-level", "debug", files={"mine.py": app}, env=gate.env)
    (worker,) = server.wait_for_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /report HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        text = ctl("stacks", worker, server=server).stdout
        assert text.startswith(f"Worker {worker} (ready), serving: GET /report (")
        assert "Thread MainThread (most recent call last):\n" in text and "gated.py" in text
        assert "Thread idler (most recent call last):\n" in text and "idle_in_a_thread" in text
        assert "arbiter.py" not in text and "spawn.py" not in text
        gate.release()
        assert sock.recv(5) == b"HTTP/"
    assert server.worker_pids() == [worker]
    other = ctl("stacks", server.pid, server=server)
    assert other.returncode == 1 and f"{server.pid} is not a worker of this server; its workers are: {worker}" in (
        other.stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("-k", "asgi", "--asgi-loop", "asyncio"),
        ("-k", "asgi", "--asgi-loop", "uvloop"),
        ("-k", "uvicorn_worker.UvicornWorker"),
    ],
    ids=["asyncio", "uvloop", "uvicorn"],
)
def test_stacks_show_where_tasks_wait(start: Callable[..., Server], ctl: Ctl, arguments: tuple[str, ...]) -> None:
    app = (
        "import asyncio\n"
        "async def wait_for_a_database():\n"
        "    print('waiting', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'http': await wait_for_a_database()\n"
    )
    server = start("mine:app", *arguments, "--log-level", "debug", files={"mine.py": app})
    server.wait_for_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
        server.wait_for_log("waiting", stream="stdout")
        text = ctl("stacks", server=server).stdout
        assert "Task " in text and "in wait_for_a_database\n" in text
    server.stop(signal.SIGQUIT)


def test_status_has_the_class_that_the_application_asked_for(start: Callable[..., Server], ctl: Ctl) -> None:
    server = start("seen_asgi:app", "--log-level", "debug", wait=False)
    server.wait_for_ready(1)
    assert report(ctl, server)["worker_class"] == "asgi"
    assert "1 of 1 workers ready (asgi)" in ctl("status", server=server).stdout


@pytest.mark.parametrize("worker_class", ["gevent", "eventlet"])
def test_stacks_show_where_greenlets_wait(start: Callable[..., Server], ctl: Ctl, worker_class: str) -> None:
    app = (
        "import time\n"
        "def wait_for_a_database():\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(60)\n"
        "def app(environ, start_response):\n"
        "    wait_for_a_database()\n"
    )
    server = start("mine:app", "-k", worker_class, "--log-level", "debug", files={"mine.py": app})
    server.wait_for_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
        server.wait_for_log("waiting", stream="stdout")
        text = ctl("stacks", server=server).stdout
        assert "in wait_for_a_database\n" in text
    server.stop(signal.SIGQUIT)


def test_stacks_of_a_worker_in_c_code(start: Callable[..., Server], ctl: Ctl) -> None:
    server = start("doomed:app", "--log-level", "debug")
    server.wait_for_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /hang HTTP/1.1\r\nHost: test.example\r\n\r\n")
        wait_until(lambda: "in hang_in_c" in ctl("stacks", server=server).stdout, "the stack of the C code")
    server.kill()


def test_stacks_of_a_stopped_worker(start: Callable[..., Server], ctl: Ctl) -> None:
    server = start("hello:app", "--log-level", "debug")
    (worker,) = server.wait_for_ready(1)
    suspend(worker)
    assert "(no answer; the kernel says that the process is: T (stopped))" in ctl("stacks", server=server).stdout
    os.kill(worker, signal.SIGCONT)


def test_an_upgrade_is_waited_for(start: Callable[..., Server], ctl: Ctl, runtime: Path) -> None:
    server = start("hello:app", "--log-level", "debug")
    server.wait_for_ready(1)
    with load(server.url) as traffic:
        done = ctl("upgrade", server=server)
        assert done.returncode == 0 and done.stdout.startswith("Upgraded: the workers of the new arbiter (pid ")
        assert server.process.wait(20) == 0
        traffic.wait_for(50)
    assert traffic.failures == []
    (path,) = [path for path in (runtime / "bicorn").iterdir() if path.stem != str(server.pid)]
    assert "(sync), generation 1" in ctl("status", "--socket", path).stdout
    assert ctl("stop", "--socket", path).returncode == 0


def test_an_upgrade_takes_a_configured_path_along_and_gives_it_back_when_it_fails(
    start: Callable[..., Server], ctl: Ctl
) -> None:
    config = "control_socket = 'own.ctl'\n"
    server = start("mine:app", "--log-level", "debug", config=config, files={"mine.py": "from hello import app"})
    path = server.directory / "own.ctl"
    server.wait_for_ready(1)
    (server.directory / "mine.py").write_text("raise RuntimeError('no such table')")
    failed = ctl("upgrade", "--socket", path)
    assert failed.returncode == 1 and "this one serves on" in failed.stderr
    server.signal(signal.SIGTTIN)  # Anything that wakes the arbiter.
    wait_until(path.exists, "the socket is there again")
    shown = ctl("status", "--socket", path).stdout
    assert f"arbiter {server.pid}" in shown and "last upgrade: failed" in shown
    (server.directory / "mine.py").write_text("from hello import app")
    assert ctl("upgrade", "--socket", path).returncode == 0
    assert server.process.wait(20) == 0
    assert ctl("stop", "--socket", path).returncode == 0
    assert not path.exists()


def test_an_arbiter_is_not_taken_for_its_successor(start: Callable[..., Server], ctl: Ctl) -> None:
    server = start("hello:app", "--log-level", "debug", "--control-socket", "own.ctl")
    server.wait_for_ready(1)
    server.signal(signal.SIGUSR2)
    new = int(server.wait_for_log(r"Started the new arbiter \(pid: (\d+)\)")[1])
    server.wait_for_log(r"the workers of the new arbiter \(pid \d+\) are ready")
    taken = ctl("stop", server=server)
    assert taken.returncode == NO_ANSWER and f"belongs to process {new} now" in taken.stderr
    assert ctl("stop", "--pid", new).returncode == 0
    assert server.running and server.get("/").status == 200


# -- which server ----------------------------------------------------------------------------------


def test_a_server_is_found_by_its_pid_file_or_socket(start: Callable[..., Server], ctl: Ctl, runtime: Path) -> None:
    server = start("hello:app", "-p", "server.pid", "--control-socket", "own.ctl")
    path = server.directory / "own.ctl"
    wait_until(path.exists, "the socket is there")
    for which in (("--pidfile", server.directory / "server.pid"), ("--socket", path), ("--pid", server.pid)):
        assert f"arbiter {server.pid}" in ctl("status", *which).stdout
    assert path.stat().st_mode & 0o777 == 0o600
    server.stop()
    assert not path.exists()


def test_two_servers_of_one_user_do_not_meet(start: Callable[..., Server], ctl: Ctl, runtime: Path) -> None:
    first, second = start("hello:app"), start("hello:app")
    paths = [has_socket(server, runtime) for server in (first, second)]
    assert report(ctl, first)["pid"] == first.pid and report(ctl, second)["pid"] == second.pid
    which = ctl("status")
    assert which.returncode == NO_ANSWER and "servers are running; say which one" in which.stderr
    for server, path in zip((first, second), paths, strict=True):
        assert f"  --socket {path}  hello:app at http://127.0.0.1:{server.port}\n" in which.stderr
    first.stop()
    assert not paths[0].exists() and paths[1].exists()


def test_the_version_is_that_of_the_server(ctl: Ctl) -> None:
    asked = ctl("--version")
    assert (asked.returncode, asked.stdout) == (0, f"bicornctl (version {__version__})\n")


@pytest.mark.parametrize(
    ("which", "says"),
    [
        (("--pid", "1"), "process 1 has no control socket that we can see"),
        (("--pid", "4194305"), "there is no process 4194305"),
        (("--pidfile", "/nowhere"), "/nowhere: No such file or directory; is the server running?"),
        (("--pidfile", "/dev/null"), "/dev/null: there is no pid in it"),
        (("--socket", "/nowhere.ctl"), "/nowhere.ctl: there is no such socket"),
    ],
)
def test_a_server_that_is_not_there(ctl: Ctl, which: tuple[str, str], says: str) -> None:
    missing = ctl("status", *which)
    assert missing.returncode == NO_ANSWER
    assert says in missing.stderr and "Traceback" not in missing.stderr


def test_a_socket_of_another_program(ctl: Ctl, start: Callable[..., Server]) -> None:
    server = start("hello:app", "-b", "unix:web.sock")
    strange = ctl("status", "--socket", server.directory / "web.sock")
    assert strange.returncode == 1
    assert "the answer is not one of a Bicorn server" in strange.stderr


# -- the socket ------------------------------------------------------------------------------------


def test_a_server_that_can_have_none_says_so_to_who_looks(serve: Serve, runtime: Path) -> None:
    server = serve("hello:app", "--control-socket", "/nowhere/at.ctl", "--log-level", "debug")
    server.wait_for_log(r"\[DEBUG\] No control socket: cannot listen on /nowhere/at\.ctl: No such file or directory")
    assert server.get("/").status == 200
    assert server.stop() == 0


def test_none_is_made_when_it_is_not_wanted(start: Callable[..., Server], ctl: Ctl, runtime: Path) -> None:
    server = start("hello:app", "--no-control-socket", "--log-level", "debug")
    server.wait_for_ready(1)
    assert not (runtime / "bicorn").exists()
    assert ctl("status", server=server).returncode == NO_ANSWER


def is_refused(path: Path) -> bool:
    """Whether nobody listens on the socket any more."""
    with socket.socket(socket.AF_UNIX) as late:
        try:
            late.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def test_it_goes_with_the_arbiter_whatever_its_workers_do(
    start: Callable[..., Server], runtime: Path, gate: Gate
) -> None:
    server = start("gated:app", "--log-level", "debug", env=gate.env)
    path = has_socket(server, runtime)
    with socket.socket(socket.AF_UNIX) as client, server.connect() as request:
        client.connect(str(path))
        server.wait_for_ready(1)
        # Forked while the client is connected: it must not inherit its connection.
        server.signal(signal.SIGTTIN)
        server.wait_for_ready(2)
        request.sendall(b"GET /report HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        os.kill(server.pid, signal.SIGKILL)
        client.settimeout(20)
        assert client.recv(1) == b""
        # The kernel closes a dead process's descriptors one after another.
        wait_until(lambda: is_refused(path), "a refusal")
        gate.release()
    # The next server of the user clears away what is left, now that the process is gone.
    server.process.wait()
    other = start("hello:app")
    has_socket(other, runtime)
    assert not path.exists()


def test_it_moves_with_a_reload_and_comes_back_when_it_was_removed(
    start: Callable[..., Server], ctl: Ctl, runtime: Path
) -> None:
    server = start("hello:app", "--log-level", "debug", config="control_socket = 'one.ctl'\n")
    one, two = server.directory / "one.ctl", server.directory / "two.ctl"
    server.wait_for_ready(1)
    (server.directory / "server.conf.py").write_text("control_socket = 'two.ctl'\n")
    assert ctl("reload", "--socket", one).returncode == 0
    wait_until(two.exists, "the socket is where it was moved to")
    assert not one.exists()
    two.unlink()
    server.signal(signal.SIGTTIN)  # Anything that wakes the arbiter.
    wait_until(two.exists, "the socket is there again")
    assert ctl("status", "--socket", two).returncode == 0


def test_the_arbiter_does_its_work_whatever_clients_do(start: Callable[..., Server], ctl: Ctl, runtime: Path) -> None:
    server = start("hello:app", "--log-level", "debug")
    path = has_socket(server, runtime)
    server.wait_for_ready(1)
    clients = [socket.socket(socket.AF_UNIX) for _ in range(80)]
    try:
        for number, client in enumerate(clients):
            client.connect(str(path))
            line = b'{"version": 1, "command": "status"}\n' * 200 if number % 2 else b"x" * 100_000
            client.setblocking(False)
            try:
                client.send(line)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                continue
        assert report(ctl, server)["pid"] == server.pid
        (victim,) = server.worker_pids()
        os.kill(victim, signal.SIGKILL)
        server.wait_for_workers(1, without=[victim])
    finally:
        for client in clients:
            client.close()
    assert len(os.listdir(f"/proc/{server.pid}/fd")) < 100
