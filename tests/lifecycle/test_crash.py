"""Workers that die, get stuck, or cannot live."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest

from harness.gate import Gate
from harness.server import Server, suspend, wait_until

Start = Callable[..., Server]
REQUEST = b"GET /report HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"


def test_a_killed_worker_is_replaced(start: Start) -> None:
    server = start("hello:app", "-w", "2")
    server.get("/")
    victim, other = server.wait_for_workers(2)
    os.kill(victim, signal.SIGKILL)
    assert other in server.wait_for_workers(2, without=[victim])
    # Whether the cgroup can be read depends on the machine; test_named.py tells more.
    server.wait_for_log(rf"\[ERROR\] Worker \(pid:{victim}\) was sent SIGKILL! (Perhaps out|Not by the arbiter)")
    assert server.get("/").status == 200


def test_child_exit_sees_the_pid_of_the_dead_worker(start: Start) -> None:
    config = (
        "def child_exit(server, worker):\n"
        "    print('gone', worker.pid, worker.pid in server.WORKERS, server.pid, flush=True)\n"
    )
    server = start("hello:app", config=config)
    server.get("/")
    (victim,) = server.wait_for_workers(1)
    os.kill(victim, signal.SIGSEGV)
    server.wait_for_log(rf"\[ERROR\] Worker \(pid:{victim}\) was sent SIGSEGV! ")
    server.wait_for_log(f"gone {victim} False {server.pid}", stream="stdout")


def test_a_stuck_worker_is_named_aborted_and_replaced(start: Start, gate: Gate) -> None:
    config = "def worker_abort(worker):\n    print('aborting', worker.pid, worker.alive, flush=True)\n"
    server = start("gated:app", "-t", "1", config=config, env=gate.env)
    (stuck,) = server.wait_for_workers(1)
    with server.connect() as sock:
        sock.sendall(REQUEST)
        gate.wait_started()
        server.wait_for_log(rf"\[CRITICAL\] WORKER TIMEOUT \(pid:{stuck}\)")
        server.wait_for_log(f"aborting {stuck} False", stream="stdout")
        answer = sock.recv(12)
    assert answer in (b"HTTP/1.1 504", b"")  # A class that writes its answers itself may have none.
    server.wait_for_log(rf"\[ERROR\] Worker \(pid:{stuck}\) exited with code 1\.")
    server.wait_for_workers(1, without=[stuck])
    assert "gated.py" in server.log  # the stack says where it was
    assert server.get("/free").body == b"done"


def test_a_request_gets_the_whole_timeout_however_long_the_worker_was_idle(start: Start) -> None:
    server = start("taking:app", "-t", "2")
    (worker,) = server.wait_for_workers(1)
    # The idle loop wakes once a second; each request comes at another moment of that second.
    for _ in range(3):
        assert server.get("/?1.6").body == b"done"
    assert server.wait_for_workers(1) == [worker]
    assert "WORKER TIMEOUT" not in server.log


def test_an_idle_worker_is_alive_within_the_shortest_timeout(start: Start) -> None:
    server = start("hello:app", "-t", "1")
    (worker,) = server.wait_for_workers(1)
    with pytest.raises(AssertionError, match="Booting worker with pid"):
        server.wait_for_log("WORKER TIMEOUT", timeout=3.5)
    assert server.wait_for_workers(1) == [worker]


def test_a_worker_that_ignores_the_abort_is_killed(start: Start) -> None:
    # SIGSTOP: no signal but SIGKILL does anything to it.
    server = start("hello:app", "-t", "1")
    server.get("/")
    (stuck,) = server.wait_for_workers(1)
    suspend(stuck)
    server.wait_for_log(rf"WORKER TIMEOUT \(pid:{stuck}\)")
    server.wait_for_log(rf"Worker \(pid:{stuck}\) was sent SIGKILL!")
    server.wait_for_workers(1, without=[stuck])
    assert server.get("/").status == 200


def test_a_timeout_of_zero_watches_nobody(start: Start, gate: Gate) -> None:
    server = start("gated:app", "-t", "0", env=gate.env)
    with server.connect() as sock:
        sock.sendall(REQUEST)
        gate.wait_started()
        (pid,) = server.worker_pids()
        server.signal(signal.SIGTTIN)
        server.wait_for_workers(2)
        gate.release()
        assert sock.recv(5) == b"HTTP/"
    assert pid in server.worker_pids()


def test_a_crash_loop_is_slowed_down_and_one_line_each(start: Start) -> None:
    # Ready once, so that the first boot does not end the server; then every worker dies while it boots.
    app = "import os\nif os.path.exists('broken'): os._exit(7)\nfrom hello import app\n"
    server = start("mine:app", files={"mine.py": app})
    server.get("/")
    (first,) = server.wait_for_workers(1)
    (server.directory / "broken").touch()
    os.kill(first, signal.SIGKILL)
    server.wait_for_log(r"3 workers in a row died at once; the next is started in 1\.0 s")
    delays = re.findall(r"(\d+) workers in a row died at once; the next is started in ([\d.]+) s", server.log)
    assert delays == [("2", "0.5"), ("3", "1.0")]
    # The first death counts only if that worker had just become ready; it decides between 3 and 4 forks.
    assert len(re.findall("Booting worker", server.log)) in (3, 4)
    (server.directory / "broken").unlink()
    wait_until(lambda: server.worker_pids(), "a worker again")
    assert server.get("/").status == 200


def test_a_first_boot_that_crashes_otherwise_is_tried_again(start: Start) -> None:
    app = (
        "import os\n"
        "try: os.mkdir('been-here')\n"
        "except FileExistsError: from hello import app\n"
        "else: os.kill(os.getpid(), 11)\n"
    )
    server = start("mine:app", files={"mine.py": app})
    assert server.get("/").status == 200
    server.wait_for_log("was sent SIGSEGV!")


def test_a_first_boot_that_fails_is_tried_again_if_that_is_wanted(start: Start) -> None:
    app = "import os\nif not os.path.exists('database'): raise RuntimeError('no database')\nfrom hello import app\n"
    server = start("mine:app", "--on-boot-failure", "retry", "--respawn-delay-max", "0.6", files={"mine.py": app})
    server.wait_for_log(r"4 workers in a row died at once; the next is started in 0\.6 s")
    (server.directory / "database").touch()
    assert server.get("/").status == 200
    assert server.stop() == 0


def test_a_hook_that_raises_does_not_end_a_serving_server(start: Start) -> None:
    config = "def child_exit(server, worker):\n    raise ValueError('in the hook')\n"
    server = start("hello:app", config=config)
    server.get("/")
    (victim,) = server.wait_for_workers(1)
    os.kill(victim, signal.SIGKILL)
    server.wait_for_log("Exception in the child_exit hook")
    server.wait_for_log("ValueError: in the hook")
    server.wait_for_workers(1, without=[victim])
    assert server.get("/").status == 200
