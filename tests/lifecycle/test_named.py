"""Why a worker went, and where a request is: guarantee 4, and the names of crashes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.gate import Gate
from harness.server import Serve, Server, suspend, wait_until
from workers.classes import LOOPS

Start = Callable[..., Server]


def ask(server: Server, path: str) -> bytes:
    """Send a request, and give what comes back before the connection closes."""
    return server.raw(f"GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n".encode())


# -- timeouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "worker_class", ["sync", "plain_worker.PlainWorker", "gthread", "gevent", "eventlet", "asgi", "tornado"]
)
def test_a_worker_that_hangs_in_c_code_is_named_with_its_stacks(serve: Serve, worker_class: str) -> None:
    server = serve("doomed:app", "-k", worker_class, "-t", "1")
    (stuck,) = server.wait_for_workers(1)
    answer = ask(server, "/hang")
    # Ours need no interpreter for that.
    is_answered = worker_class != "plain_worker.PlainWorker"
    assert answer.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n" if is_answered else b"")
    assert bool(answer) == is_answered
    server.wait_for_log(rf"\[CRITICAL\] WORKER TIMEOUT \(pid:{stuck}\)")
    report = server.wait_for_log(rf"\[ERROR\] Worker \(pid:{stuck}, ready\) gave no sign of life for \d+\.\d s; (.*)\n")
    # The hook cannot run: no Python can. What SIGABRT does not end, SIGKILL does.
    server.wait_for_log(rf"Worker \(pid:{stuck}\) was sent SIGKILL! It had not stopped in time")
    assert "in hang_in_c" in server.log and "spawn.py" not in server.log
    server.wait_for_workers(1, without=[stuck])
    assert server.get("/").body == b"alive"
    assert report[1].startswith("serving: GET /hang (for " if is_answered else "serving: no request")


@pytest.mark.parametrize("worker_class", ["gevent", "eventlet", "tornado"])
def test_of_the_requests_of_a_stuck_loop_the_oldest_is_named_as_that(
    serve: Serve, gate: Gate, worker_class: str
) -> None:
    app = "stuck:make_tornado()" if worker_class == "tornado" else "stuck:app"
    server = serve(app, "-k", worker_class, "-t", "1", env=gate.env)
    with contextlib.ExitStack() as stack:
        for path in ("/wait?first", "/wait?second"):
            stack.enter_context(server.connect()).sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            gate.wait_started()
        ask(server, "/spin")
        # Which of the three it is only the stacks can say.
        server.wait_for_log(
            r"gave no sign of life for \d+\.\d s; serving: GET /wait\?first \(for [0-9.]+ s\), the oldest of 3\n"
            r"(?:.*\n)*?.*in spin"
        )


def test_the_request_of_a_stuck_worker_is_named(serve: Serve) -> None:
    server = serve("doomed:app", "-t", "1")
    ask(server, "/hang")
    server.wait_for_log(r"gave no sign of life for 1\.\d s; serving: GET /hang \(for 1\.\d s\)\n")


def test_the_stacks_of_every_thread_are_there(start: Start, gate: Gate) -> None:
    app = (
        "import threading\n"
        "from gated import app\n"
        "def idle_in_a_thread(): threading.Event().wait()\n"
        "threading.Thread(target=idle_in_a_thread, daemon=True).start()\n"
    )
    server = start("mine:app", "-t", "1", files={"mine.py": app}, env=gate.env)
    server.wait_for_workers(1)
    ask_and_leave(server, "/report")
    gate.wait_started()
    report = server.wait_for_log(r"gave no sign of life(?:.*\n)+?.*in app\n(?:  File.*\n)*")[0]
    assert "in idle_in_a_thread" in report or "in idle_in_a_thread" in server.log
    assert server.log.count("gave no sign of life") == 1


def ask_and_leave(server: Server, path: str) -> None:
    """Send a request whose answer nobody waits for."""
    with server.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test.example\r\n\r\n".encode())


def test_a_stopped_worker_is_reported_without_stacks(start: Start) -> None:
    server = start("hello:app", "-t", "1")
    server.get("/")
    (stuck,) = server.wait_for_workers(1)
    suspend(stuck)
    server.wait_for_log(rf"Worker \(pid:{stuck}, ready\) gave no sign of life for \d\.\d s; serving: .*\n\(")


# -- slow requests ---------------------------------------------------------------------------------


def test_a_slow_request_is_sampled_once_while_it_runs(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "--slow-request-log", "0.4", "--keep-alive", "5", env=gate.env)
    (pid,) = server.wait_for_workers(1)
    with server.connection() as (sock, reader):
        for count in (1, 2):
            sock.sendall(b"GET /report?year=2026 HTTP/1.1\r\nHost: test.example\r\n\r\n")
            gate.wait_started()
            server.wait_for_log(
                rf"\[WARNING\] Slow request in worker \(pid:{pid}\): GET /report\?year=2026 \(for [01]\.\d s\)\n"
                r"Thread MainThread \(most recent call last\):\n(?:.*\n)+?.*release\.read\(1\)",
                count=count,
            )
            gate.release()
            assert reader.read_answer().body == b"done"
        sock.sendall(b"GET /free HTTP/1.1\r\nHost: test.example\r\n\r\n")
        assert reader.read_answer().body == b"done"
    assert server.log.count("Slow request") == 2
    assert server.worker_pids() == [pid]


def test_of_many_slow_requests_one_is_sampled_each_second(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "-w", "3", "--slow-request-log", "0.2", "--log-level", "debug", env=gate.env)
    server.wait_for_ready(3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(server.connect())
            sock.sendall(b"GET /report HTTP/1.1\r\nHost: test.example\r\n\r\n")
            gate.wait_started()
        server.wait_for_log("Slow request")
        first_at = time.monotonic()
        server.wait_for_log("Slow request", count=3)
        assert time.monotonic() - first_at > 1  # Two, less what the test was late in seeing the first.
        gate.release(3)


def test_of_several_requests_the_slow_one_is_named(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "-k", "gthread", "--threads", "2", "--slow-request-log", "0.4", env=gate.env)
    with server.connect() as sock:
        sock.sendall(b"GET /report HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        while "Slow request" not in server.log:
            # Each of these is the last one that entered, and hides the slow one from who looks only at that.
            assert server.get("/free").body == b"done"
        server.wait_for_log(
            r"Slow request in worker \(pid:\d+\): GET /report \(for [0-9.]+ s\)\n(?:.*\n)*?"
            r"Thread bicorn-\d \(most recent call last\):\n(?:.*\n)*?.*gated\.py"
        )
        gate.release()
        assert sock.recv(5) == b"HTTP/"
    assert server.log.count("Slow request") == 1


@pytest.mark.parametrize("worker_class", ["gevent", "eventlet"])
def test_a_slow_request_is_sampled_while_its_greenlet_waits_beside_others(
    serve: Serve, gate: Gate, worker_class: str
) -> None:
    server = serve("stuck:app", "-k", worker_class, "--slow-request-log", "0.4", env=gate.env)
    with server.connect() as waiting:
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        while "Slow request" not in server.log:
            # Each of these enters last, and leaves.
            assert server.get("/").body == b"alive"
        report = server.wait_for_log(
            r"Slow request in worker \(pid:\d+\): GET /wait \(for .*\nThread MainThread \(most recent call last\):\n"
            r"(?:.*\n)*?Greenlet (?:.*\n)*?.*stuck\.py.*in app\n"
        )[0]
    assert "arbiter.py" not in report and "stacks.py" not in report


@pytest.mark.parametrize("loop", LOOPS)
def test_a_slow_request_to_asgi_is_sampled_while_it_awaits_something(serve: Serve, gate: Gate, loop: str) -> None:
    server = serve("stuck:asgi", "-k", "asgi", "--asgi-loop", loop, "--slow-request-log", "0.6", env=gate.env)
    with server.connect() as begun, server.connect() as reading, server.connect() as waiting:
        # Two that have nothing to hide: an answer that has begun, and a body that its client does not send.
        begun.sendall(b"GET /begin HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        reading.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        waiting.sendall(b"GET /wait?for=ever HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        while "Slow request" not in server.log:
            assert server.get("/").body == b"alive"  # Each of these runs steps, and leaves.
        server.wait_for_log(
            r"Slow request in worker \(pid:\d+\): GET /wait\?for=ever \(for .*\n(?:.*\n)*?Task (?:.*\n)*?"
            r".*stuck\.py.*in asgi\n"
        )
        # Somebody who computes shows itself, whoever waits for longer.
        with server.connect() as computing:
            computing.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
            gate.wait_started()
            server.wait_for_log(r"Slow request in worker \(pid:\d+\): GET /hold \(for")
            gate.release()
    assert server.log.count("Slow request") == 2


def test_of_the_requests_of_an_event_loop_the_one_that_computes_is_named(serve: Serve, gate: Gate) -> None:
    server = serve("stuck:asgi", "-k", "asgi", "-t", "2", "--slow-request-log", "0.2", env=gate.env)
    (stuck,) = server.worker_pids()
    with server.connect() as waiting:
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        server.wait_for_log("Slow request in .*GET /wait")  # So the scoreboard shows it.
        ask(server, "/spin")
        server.wait_for_log(rf"Worker \(pid:{stuck}, ready\) gave no sign of life for .* s; serving: GET /spin \(for")


def test_a_slow_request_to_tornado_is_sampled_where_it_computes_and_where_it_waits(serve: Serve, gate: Gate) -> None:
    server = serve("stuck:make_tornado()", "-k", "tornado", "--slow-request-log", "0.4", env=gate.env)
    with server.connect() as waiting:
        waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        server.wait_for_log(r"Slow request in worker \(pid:\d+\): GET /wait \(for .*\n(?:.*\n)*?.*stuck\.py.*in get\n")
    with server.connect() as computing:
        computing.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        server.wait_for_log(r"Slow request in worker \(pid:\d+\): GET /hold \(for .*\n(?:.*\n)*?.*stuck\.py.*in hold\n")
        gate.release()
        assert computing.recv(12) == b"HTTP/1.1 200"
    assert server.log.count("Slow request") == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_slow_wsgi_request_under_tornado_is_sampled(serve: Serve, gate: Gate, threads: int) -> None:
    arguments = ("-k", "tornado", "--threads", str(threads), "--slow-request-log", "0.4")
    server = serve("gated:app", *arguments, env=gate.env)
    with server.connect() as sock:
        sock.sendall(b"GET /report HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        server.wait_for_log(r"Slow request in worker \(pid:\d+\): GET /report \(for .*\n(?:.*\n)*?.*gated\.py")
        gate.release()
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_a_slow_request_in_c_code_is_sampled_as_well(serve: Serve) -> None:
    server = serve("doomed:app", "--slow-request-log", "0.2")
    ask_and_leave(server, "/hang")
    server.wait_for_log(r"Slow request in worker \(pid:\d+\): GET /hang .*\n(?:.*\n)*?.*in hang_in_c")
    server.kill()  # By itself it would go after graceful_timeout.


# -- crashes ---------------------------------------------------------------------------------------


def test_a_segmentation_fault_is_named_with_the_stack(start: Start) -> None:
    server = start("doomed:app")
    (victim,) = server.wait_for_workers(1)
    ask(server, "/crash")
    report = server.wait_for_log(
        rf"\[ERROR\] Worker \(pid:{victim}\) was sent SIGSEGV! It used memory that it does not have "
        r"\(segmentation fault\): the fault of an extension module or of a library\.(.*)\n"
        r"Fatal Python error: Segmentation fault\n(?:.*\n)*?.*in crash_in_c"
    )
    # A class that somebody else wrote does not show its requests.
    if "plain_worker" not in " ".join(server.arguments):
        assert re.fullmatch(r" It was serving: GET /crash \(for \d\.\d s\)", report[1])
    server.wait_for_workers(1, without=[victim])
    assert server.get("/").body == b"alive"


def test_a_request_that_outlives_graceful_timeout_is_named(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "--graceful-timeout", "1", env=gate.env)
    ask_and_leave(server, "/report")
    gate.wait_started()
    assert server.stop(timeout=10) == 0
    assert re.search(
        r"was sent SIGKILL! It had not stopped .*\. It was serving: GET /report \(for \d+\.\d s\)\n", server.log
    )


LIMIT_BYTES = 160 * 2**20


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of our own with a limit that a server with one worker fits into."""
    path = cgroup_to_be(Path("/proc/self/cgroup").read_text())
    if path is None:
        pytest.skip("no cgroup of the memory controller is mounted where we could make one")
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        limits = [path / name for name in ("memory.max", "memory.limit_in_bytes") if (path / name).exists()]
        if not limits:
            pytest.skip("the memory controller is not delegated to us")
        limits[0].write_text(str(LIMIT_BYTES))
        yield path
    finally:
        wait_until(lambda: not (path / "cgroup.procs").read_text(), "the cgroup is empty")
        path.rmdir()


def cgroup_to_be(memberships: str) -> Path | None:
    """Where a child of our own memory cgroup would be."""
    name = f"bicorn-test-{os.getpid()}"
    v1 = re.search(r"^\d+:(?:\S*,)?memory(?:,\S*)?:(/.*)$", memberships, re.MULTILINE)
    if v1 is not None:
        return Path("/sys/fs/cgroup/memory") / v1[1].lstrip("/") / name
    v2 = re.search(r"^0::(/.*)$", memberships, re.MULTILINE)
    return Path("/sys/fs/cgroup") / v2[1].lstrip("/") / name if v2 is not None else None


def test_a_kill_for_memory_is_named(serve: Serve, small_cgroup: Path) -> None:
    enter = (
        "import os, sys\n"
        f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'bicorn', *sys.argv[1:]])\n"
    )
    server = serve("doomed:app", files={"enter.py": enter}, launcher=("enter.py",))
    (victim,) = server.wait_for_workers(1)
    ask(server, "/eat")
    server.wait_for_log(
        rf"\[ERROR\] Worker \(pid:{victim}\) was sent SIGKILL! Out of memory: the kernel killed it "
        r"\(the limit of its cgroup is 160 MiB\)\. It was serving: GET /eat \(for \d+\.\d s\)\n"
    )
    (second,) = server.wait_for_workers(1, without=[victim])
    os.kill(second, signal.SIGKILL)
    server.wait_for_log(rf"Worker \(pid:{second}\) was sent SIGKILL! Not by the arbiter, and not for memory")
    server.wait_for_workers(1, without=[second])
    assert server.get("/").body == b"alive"
    server.stop()
