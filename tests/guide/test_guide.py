"""The user's guide, line by line, on a real Flask and a real Django project.

Each line is run with `bicorn`, and with `gunicorn` after `bicornctl adopt`.
"""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from guide.commands import EXEC_ON_ONE_CPU, Guide
from harness.answers import Answer, AnswerReader
from harness.gate import Gate
from harness.load import load
from harness.server import Server, wait_until

REQUEST = b"GET / HTTP/1.1\r\nHost: guide.example\r\n\r\n"


def worker(answer: Answer) -> int:
    """The process that answered."""
    return int(answer.header("X-Worker") or 0)


def assert_serves(server: Server) -> None:
    """Get a page, and post something."""
    assert server.get("/").body == b"version 1"
    body = json.dumps({"name": "Zoë"}).encode()
    answer = server.get("/echo", method="POST", body=body, headers={"Content-Type": "application/json"})
    assert json.loads(answer.body) == {"name": "Zoë"}


# -- the command line ------------------------------------------------------------------------------


def test_workers_and_bind(guide: Guide) -> None:
    server = guide.run("COMMAND --workers 3 --bind 0.0.0.0:0 APP")
    server.wait_for_log(r"Listening at: http://0\.0\.0\.0:\d+")
    assert len(server.wait_for_workers(3)) == 3
    assert_serves(server)


def test_the_sync_worker(guide: Guide) -> None:
    server = guide.run("COMMAND -k sync --bind 127.0.0.1:0 APP")
    server.wait_for_log("Using worker: sync")
    assert_serves(server)


def test_timeout_replaces_a_worker_that_is_stuck(guide: Guide) -> None:
    server = guide.run("COMMAND --timeout 1 --bind 127.0.0.1:0 APP")
    (old,) = server.wait_for_workers(1)
    with server.connect() as sock:
        sock.sendall(REQUEST.replace(b"/ ", b"/stuck ", 1))
        server.wait_for_log(rf"WORKER TIMEOUT \(pid:{old}\)")
        server.wait_for_log("GET /stuck")  # The log names the request that hung.
        server.wait_for_workers(1, without=[old])
    assert_serves(server)


def test_keep_alive(guide: Guide) -> None:
    server = guide.run("COMMAND --keep-alive 1 --bind 127.0.0.1:0 APP")
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(REQUEST)
            assert reader.read_answer().header("Connection") == "keep-alive"
        idle_since = time.monotonic()
        assert reader.read_to_close() == b""
        assert time.monotonic() - idle_since > 0.9


def test_max_requests_replaces_workers_and_loses_nothing(guide: Guide) -> None:
    server = guide.run("COMMAND --workers 2 --max-requests 25 --bind 127.0.0.1:0 APP")
    first = set(server.wait_for_workers(2))
    with load(server) as traffic:
        wait_until(
            lambda: traffic.failures or not first & set(server.worker_pids()),
            lambda: f"other workers than {first}; {traffic}",
        )
        traffic.wait_for(200, body=b"version 1")
    assert traffic.failures == []
    server.wait_for_log("Autorestarting worker after current request.")


def test_max_requests_jitter_spreads_the_replacements(guide: Guide) -> None:
    server = guide.run("COMMAND --max-requests 5 --max-requests-jitter 5 --bind 127.0.0.1:0 APP")
    served: dict[int, int] = {}
    while len(served) < 4:
        pid, answers = use_up_a_connection(server)
        served.setdefault(pid, answers)  # A worker that is leaving gives one answer to each that still comes.
    assert all(5 <= answers <= 10 for answers in served.values()), served


def use_up_a_connection(server: Server) -> tuple[int, int]:
    """Ask until the server closes; who answered, and how often."""
    answers: list[Answer] = []
    with server.connection() as (sock, reader):
        while not answers or answers[-1].header("Connection") == "keep-alive":
            sock.sendall(REQUEST)
            answers.append(reader.read_answer())
    return worker(answers[0]), len(answers)


def test_preload_loads_the_application_once_before_the_workers(guide: Guide) -> None:
    server = guide.run("COMMAND --preload --workers 2 --bind 127.0.0.1:0 APP")
    workers = server.wait_for_workers(2)
    answer = server.get("/")
    assert worker(answer) in workers
    assert [answer.header("X-Loaded-By")] == list(map(str, server.template_pids()))


def test_without_preload_each_worker_loads_the_application(guide: Guide) -> None:
    server = guide.run("COMMAND --bind 127.0.0.1:0 APP")
    answer = server.get("/")
    assert answer.header("X-Loaded-By") == answer.header("X-Worker")


def test_log_level(guide: Guide) -> None:
    debug = guide.run("COMMAND --log-level debug --bind 127.0.0.1:0 APP")
    debug.wait_for_log(r"\[DEBUG\] Current configuration")
    quiet = guide.run("COMMAND --log-level warning --bind unix:quiet.sock APP", wait=False)
    wait_until((quiet.directory / "quiet.sock").exists, lambda: f"the socket; {quiet.log}")
    assert quiet.get("/", address=f"unix:{quiet.directory}/quiet.sock").status == 200
    assert quiet.stop() == 0
    assert quiet.log == ""


def test_workers_auto_counts_the_cpus_that_may_be_used(guide: Guide) -> None:
    server = guide.run("COMMAND -w auto --bind 127.0.0.1:0 APP", on=EXEC_ON_ONE_CPU)
    assert len(server.wait_for_workers(3)) == 3  # two for the one CPU, and one more


def test_web_concurrency(guide: Guide) -> None:
    server = guide.run("COMMAND --bind 127.0.0.1:0 APP", env={"WEB_CONCURRENCY": "2"})
    assert len(server.wait_for_workers(2)) == 2
    server.stop()
    server = guide.run("COMMAND -w 1 --bind 127.0.0.1:0 APP", env={"WEB_CONCURRENCY": "2"})
    server.get("/")
    assert len(server.wait_for_workers(1)) == 1


# -- the configuration file ------------------------------------------------------------------------

COMBINED = (
    r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"GET / HTTP/1\.1" 200 9 "(http.*)" "(.*)"\n'
)


def test_the_configuration_file(guide: Guide) -> None:
    server = guide.run("COMMAND --config gunicorn-cfg.py APP")
    assert len(server.wait_for_workers(3)) == 3
    assert_serves(server)
    answer = server.get("/", headers={"Referer": "http://a.example/", "User-Agent": "guide"})
    assert [answer.header("X-Loaded-By")] == list(map(str, server.template_pids()))  # preload_app
    assert server.wait_for_log(COMBINED, stream="stdout").groups() == ("http://a.example/", "guide")
    server.wait_for_log(r"\[DEBUG\]")  # loglevel
    printed = guide.run("COMMAND --config gunicorn-cfg.py --print-config APP", wait=False)
    assert printed.wait_exit() == 0
    for setting in ("worker_connections = 1000", "timeout = 30", "keepalive = 2", "max_requests_jitter = 50"):
        name, _, value = setting.partition(" = ")
        assert re.search(rf"^{name} += {value}\b.*gunicorn-cfg\.py, line \d+", printed.stdout, re.MULTILINE)


def test_the_command_of_the_dockerfile_runs_unchanged(guide: Guide) -> None:
    if guide.command == "gunicorn":
        lines = (guide.project.directory / "Dockerfile").read_text().splitlines()
        (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
        assert command == ["gunicorn", "--config", "gunicorn-cfg.py", "run:app"]
    else:
        command = [guide.command, "--config", "gunicorn-cfg.py", guide.project.app]
    server = guide.run(" ".join(command))
    server.wait_for_log(r"Starting bicorn \d")
    assert_serves(server)


# -- signals ---------------------------------------------------------------------------------------


def test_kill_hup_serves_new_code_and_loses_nothing(guide: Guide) -> None:
    server = guide.run("COMMAND --workers 2 --bind 127.0.0.1:0 APP")
    old = server.wait_for_workers(2)
    with load(server) as traffic:
        guide.project.set_version(2)
        server.signal(signal.SIGHUP)
        traffic.wait_for(1, body=b"version 2")
        server.wait_for_workers(2, without=old)
        traffic.wait_for(50, body=b"version 2")
    assert traffic.failures == []


def test_kill_term_answers_what_was_asked_and_ends(guide: Guide, gate: Gate) -> None:
    server = guide.run("COMMAND --workers 2 --bind 127.0.0.1:0 APP", env=gate.env)
    workers = server.wait_for_workers(2)
    with server.connect() as sock:
        sock.sendall(REQUEST.replace(b"/ ", b"/slow ", 1))
        gate.wait_started()
        server.signal(signal.SIGTERM)
        server.wait_for_log("Handling signal: term")
        gate.release()
        answer = AnswerReader(sock).read_answer()
    assert (answer.status, answer.body) == (200, b"done")
    assert server.wait_exit() == 0
    assert worker(answer) in workers
    assert "Shutting down: Master" in server.log


# -- the project's own business --------------------------------------------------------------------


@pytest.mark.parametrize("guide", ["bicorn-django"], indirect=True)
def test_a_database_is_used_by_all_workers(guide: Guide) -> None:
    server = guide.run("COMMAND --workers 3 --bind 127.0.0.1:0 APP")
    assert [int(server.get("/visits").body) for _ in range(10)] == list(range(1, 11))
