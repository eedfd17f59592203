"""The gevent and eventlet workers: requests beside each other, patching, blocked hubs, and how they end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.server import Serve, Server, is_alive, wait_until
from workers.classes import GREEN

Start = Callable[..., Server]
PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()\n",
    "eventlet": "import eventlet; eventlet.monkey_patch()\n",
}
CLIENTS = 1000


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n".encode()


@pytest.fixture(scope="module", params=GREEN)
def server(request: pytest.FixtureRequest, serve_module: Serve) -> Server:
    """One worker, for the tests that leave it as it was."""
    return serve_module("green:app", "-k", request.param, "--access-logfile", "access.log")


@pytest.fixture(params=GREEN)
def name(request: pytest.FixtureRequest) -> str:
    """The name of the worker class."""
    return str(request.param)


@pytest.fixture
def start(name: str, serve: Serve) -> Start:
    """Start the application under one of the classes."""

    def started(*args: str, **options: object) -> Server:
        return serve("green:app", "-k", name, *args, **options)  # type: ignore[arg-type]  # passed on

    return started


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process have so many open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(before[0], count), before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- requests --------------------------------------------------------------------------------------


def test_a_thousand_clients_wait_beside_each_other(server: Server) -> None:
    with descriptors(4 * CLIENTS), contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(CLIENTS)]
        begun = time.monotonic()
        for sock in socks:
            sock.sendall(get("/wait?0.1"))
        assert [AnswerReader(sock).read_answer().body for sock in socks] == [b"/wait"] * CLIENTS
        assert time.monotonic() - begun < 10  # One after the other they would take a hundred seconds.


def test_the_standard_library_was_patched_before_the_application_was_loaded(server: Server) -> None:
    assert server.get("/patched").body == b"(True, True)"


def test_a_child_process_is_waited_for_beside_others(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(get("/child?0.3"))
        assert server.get("/quick").body == b"/quick"
        assert reader.read_answer().body == b"child\n"


def test_what_ends_a_greenlet_does_not_end_the_worker(server: Server) -> None:
    before = server.worker_pids()
    assert server.get("/escape").status == 500
    server.wait_for_log(r"Error handling request GET /escape\nTraceback[\s\S]*green\.Escape")
    assert server.get("/after").body == b"/after"
    assert server.worker_pids() == before


def test_usr1_opens_the_access_log_again(server: Server) -> None:
    path = server.directory / "access.log"
    server.get("/before")
    wait_until(lambda: "/before" in path.read_text(), "the line")
    path.rename(server.directory / "access.1")
    server.signal(signal.SIGUSR1)
    wait_until(path.exists, "the new file")
    server.get("/behind")
    wait_until(lambda: "/behind" in path.read_text(), "the line")


def test_a_slow_reader_holds_nobody_up(serve: Serve, name: str) -> None:
    server = serve("traffic:app", "-k", name, "--keep-alive", "30")
    with server.connection() as (sock, reader):
        sock.sendall(get("/stream?400"))
        for _ in range(20):
            assert server.get("/x").body == b"/x"
            reader.pending += sock.recv(1000)
        assert len(reader.read_answer().body) == 400 * 65536
        sock.sendall(get("/large?30000000"))
        assert server.get("/x").body == b"/x"
        assert len(reader.read_answer().body) == 30_000_000


def test_worker_connections_bounds_the_clients(serve: Serve, name: str, gate: Gate) -> None:
    server = serve("gated:app", "-k", name, "--worker-connections", "2", env=gate.env)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(3)]
        for sock in socks:
            sock.sendall(get("/").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        # Opening the FIFO blocks the hub for a moment; two requests get in, the third is not accepted.
        for _ in socks:
            gate.release()
        assert [AnswerReader(sock).read_answer().body for sock in socks] == [b"done"] * 3


# -- what is said at the start -----------------------------------------------------------------------


def test_threads_are_explained(start: Start) -> None:
    server = start("--threads", "4", "--worker-connections", "7")
    said = server.wait_for_log(r"threads = 4 has no effect: .* worker_connections = 7 bounds them")
    assert server.get("/").status == 200
    assert server.log.count(said[0]) == 1


def test_preload_without_a_patch_is_warned_about(start: Start, name: str) -> None:
    server = start("--preload")
    server.wait_for_log(rf"\[WARNING\] preload_app loads the application before {name} has patched")
    assert server.get("/patched").body == b"(False, True)"


def test_a_patch_in_the_configuration_file_is_in_time_for_preload(start: Start, name: str) -> None:
    server = start("--preload", "-w", "2", config=PATCH[name])
    before = server.wait_for_workers(2)
    assert server.get("/patched").body == b"(True, True)"
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=before)
    assert server.get("/wait?0.1").body == b"/wait"
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_for_log("was sent SIGKILL")
    server.wait_for_workers(2)
    assert server.stop() == 0
    assert "preload_app loads" not in server.log


def test_a_changed_file_reloads_the_worker(serve: Serve, name: str) -> None:
    app = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'%s']\n"
    server = serve("mine:app", "-k", name, "--reload", files={"mine.py": app % "old"})
    (before,) = server.worker_pids()
    assert server.get("/").body == b"old"
    (server.directory / "mine.py").write_text(app % "newer")
    server.wait_for_log(r"Worker reloading: .*mine\.py modified")
    server.wait_for_workers(1, without=[before])
    assert server.get("/").body == b"newer"


# -- the end ---------------------------------------------------------------------------------------


def test_a_blocked_hub_is_named(start: Start) -> None:
    server = start("-t", "1")
    (before,) = server.worker_pids()
    with server.connect() as sock:
        sock.sendall(get("/block?30"))
        server.wait_for_log(r"WORKER TIMEOUT \(pid:\d+\)")
        server.wait_for_log(r'green\.py", line \d+,? in app')
        server.wait_for_workers(1, without=[before])


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
def test_requests_in_flight_are_answered(start: Start, sig: signal.Signals) -> None:
    server = start()
    (before,) = server.worker_pids()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in range(20)]
        for sock in socks:
            sock.sendall(get("/wait?1"))
        server.get("/")  # The worker has read all of them by now.
        server.signal(sig)
        answers = [AnswerReader(sock).read_answer() for sock in socks]
        assert {answer.body for answer in answers} == {b"/wait"}
    if sig is signal.SIGTERM:
        # At a reload the successor may need longer than they do, and then the old worker was not told to go yet.
        assert {answer.header("Connection") for answer in answers} == {"close"}
        assert server.wait_exit() == 0
    else:
        server.wait_for_workers(1, without=[before])


def test_quit_does_not_wait(start: Start) -> None:
    server = start()
    with server.connect() as sock:
        sock.sendall(get("/wait?30"))
        server.get("/")
        assert server.stop(signal.SIGQUIT, timeout=10) == 0
    assert "Traceback" not in server.log


def test_graceful_timeout_bounds_the_end(start: Start) -> None:
    server = start("--graceful-timeout", "1")
    with server.connect() as sock:
        sock.sendall(get("/wait?30"))
        server.get("/")
        assert server.stop(timeout=10) == 0


def test_a_killed_arbiter_is_noticed(start: Start) -> None:
    server = start()
    (worker,) = server.worker_pids()
    server.get("/")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(worker), "the end of the worker")
