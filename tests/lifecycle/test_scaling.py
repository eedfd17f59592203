"""TTIN and TTOU, and signals that concern every process."""

from __future__ import annotations

import signal
from collections.abc import Callable

from harness.answers import AnswerReader
from harness.gate import Gate
from harness.load import load
from harness.server import Serve, Server, wait_until

Start = Callable[..., Server]
READY = "Worker ready (pid: "
RECORDING = (
    "def nworkers_changed(server, new, old):\n    print('changed', old, 'to', new, server.num_workers, flush=True)\n"
)


def test_ttin_and_ttou_change_the_number_of_workers(start: Start) -> None:
    server = start("hello:app", config=RECORDING + "workers = 1\n")
    server.wait_for_log("changed None to 1 1", stream="stdout")
    (first,) = server.wait_for_workers(1)
    server.signal(signal.SIGTTIN)
    pids = server.wait_for_workers(2)
    assert pids[0] == first
    server.wait_for_log("changed 1 to 2 2", stream="stdout")
    server.wait_for_log("Booting worker with pid", count=2)
    assert server.get("/").status == 200
    server.signal(signal.SIGTTOU)
    (left,) = server.wait_for_workers(1)
    server.wait_for_log("changed 2 to 1 1", stream="stdout")
    assert left in pids
    server.signal(signal.SIGTTOU)
    server.wait_for_log("Handling signal: ttou", count=2)
    assert server.get("/").status == 200
    assert server.worker_pids() == [left]


def test_ttou_lets_the_oldest_finish_its_request(start: Start, gate: Gate) -> None:
    server = start("gated:app", env=gate.env)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n")
        gate.wait_started()
        (first,) = server.worker_pids()
        server.signal(signal.SIGTTIN)
        server.wait_for_workers(2)
        assert server.get("/free").body == b"done"  # Only the new worker can have answered: it is ready.
        server.signal(signal.SIGTTOU)
        server.wait_for_log("Handling signal: ttou")
        gate.release()
        assert AnswerReader(sock).read_answer().body == b"done"
    server.wait_for_workers(1, without=[first])


def test_winch_in_a_terminal_changes_nothing(start: Start) -> None:
    server = start("hello:app")
    pids = server.wait_for_workers(1)
    server.signal(signal.SIGWINCH)
    server.wait_for_log("Handling signal: winch")
    assert server.get("/").status == 200
    assert server.worker_pids() == pids


def test_usr1_follows_a_rotation_in_every_process(start: Start) -> None:
    server = start("hello:app", "--log-file", "server.log", "--log-level", "debug", wait=False)
    log = server.directory / "server.log"
    wait_until(lambda: log.exists() and READY in log.read_text(), "a worker that is ready")
    (worker,) = server.wait_for_workers(1)
    log.rename(server.directory / "server.log.1")
    server.signal(signal.SIGUSR1)
    wait_until(log.exists, "the new log file")
    assert server.stop() == 0
    text = log.read_text()
    assert f"Worker exiting (pid: {worker})" in text and "Shutting down: Master" in text


def test_workers_follow_a_load_that_rises_and_falls(serve: Serve) -> None:
    app = (
        "import time\nfrom hello import app as hello\ndef app(*args):\n    time.sleep(0.05)\n    return hello(*args)\n"
    )
    arguments = ("--workers-max", "3", "--scale-up-after", "0.5", "--scale-down-after", "1")
    server = serve("mine:app", *arguments, files={"mine.py": app})
    server.wait_for_workers(1)
    with load(server, keep_alive=6, fresh=4, rate=50) as traffic:
        server.wait_for_workers(3)
        assert "Scaling from 1 to 2 workers" in server.log
        traffic.wait_for(50)
    server.wait_for_workers(1)
    assert "Scaling from 2 to 1 workers: 0 % busy" in server.log
    assert traffic.failures == []
