"""What the arbiter promises, kept by the asgi worker."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable

import pytest

from harness.answers import AnswerReader
from harness.server import Serve, Server, wait_until
from workers.classes import LOOPS

Connect = Callable[[Server], socket.socket]


def test_an_asgi_application_is_recognised(serve: Serve) -> None:
    server = serve("asgi_routes:app")
    assert server.get("/hello").body == b"hello"
    server.wait_for_log("asgi_routes:app is an ASGI application: using worker asgi")


def test_a_class_that_was_asked_for_is_kept(serve: Serve) -> None:
    server = serve("asgi_routes:app", "-k", "sync", wait=False)
    assert server.wait_exit() == 4
    assert "'asgi_routes:app' is an ASGI application and the sync worker serves WSGI" in server.log


def test_a_preloaded_application_is_recognised_too(serve: Serve) -> None:
    server = serve("asgi_routes:app", "--preload", "-w", "2")
    assert server.get("/tasks").status == 200


def test_term_ends_a_thousand_idle_connections_at_once(serve: Serve, connect: Connect) -> None:
    server = serve("asgi_routes:app", "--worker-connections", "2000", "--keep-alive", "60")
    server.get("/hello")
    connections = [connect(server) for _ in range(1000)]
    for sock in connections:
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
    for sock in connections:
        assert AnswerReader(sock).read_answer().status == 200
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3  # A third of a second, where nothing else runs.


def test_a_draining_worker_answers_what_it_holds(serve: Serve, connect: Connect) -> None:
    server = serve("asgi_routes:app", "--graceful-timeout", "20")
    held, idle = connect(server), connect(server)
    idle.sendall(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
    reader = AnswerReader(idle)
    assert reader.read_answer().header("Connection") == "keep-alive"
    held.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nhe")
    server.signal(signal.SIGTERM)
    assert reader.read_to_close() == b""  # So it drains by now.
    held.sendall(b"ld")
    answer = AnswerReader(held).read_answer()
    assert (answer.body, answer.header("Connection")) == (b"held", "close")
    assert server.wait_exit() == 0


def test_what_waits_in_the_listen_queue_is_answered_at_the_end(serve: Serve, connect: Connect) -> None:
    server = serve("asgi_routes:app", "--worker-connections", "1", "--graceful-timeout", "20", "--log-level", "debug")
    first = connect(server)
    first.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nfi")
    server.wait_for_log("accepting rests")
    waiting = connect(server)
    waiting.sendall(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
    server.signal(signal.SIGTERM)
    assert AnswerReader(waiting).read_answer().body == b"hello"
    first.sendall(b"rs")
    assert AnswerReader(first).read_answer().body == b"firs"
    assert server.wait_exit() == 0


def test_a_blocked_loop_is_found_and_named(serve: Serve) -> None:
    config = "def worker_abort(worker):\n    worker.log.info('worker_abort for %s', worker.pid)\n"
    server = serve("asgi_routes:app", "--timeout", "1", config=config)
    server.get("/hello")
    (pid,) = server.worker_pids()
    with server.connection() as (sock, _):
        sock.sendall(b"GET /block HTTP/1.1\r\nHost: h\r\n\r\n")
        server.wait_for_log(rf"worker_abort for {pid}")
    server.wait_for_log(r"GET /block")
    server.wait_for_log(r'asgi_routes.py", line \d+,? in block')
    server.wait_for_workers(1, without=[pid])
    assert server.get("/hello").status == 200


def test_max_requests_loses_nothing(serve: Serve) -> None:
    server = serve("asgi_routes:app", "--max-requests", "20")

    def three_have_gone() -> bool:
        assert server.get("/hello").status == 200
        return server.log.count("Autorestarting") >= 3 and server.log.count("Worker exiting") >= 3

    wait_until(three_have_gone, "three workers that served their time")


def test_no_more_connections_than_worker_connections(serve: Serve, connect: Connect) -> None:
    server = serve("asgi_routes:app", "--worker-connections", "2", "--keep-alive", "60")
    first, second = connect(server), connect(server)
    for sock in (first, second):
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
        assert AnswerReader(sock).read_answer().status == 200
    third = connect(server)
    third.sendall(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
    third.settimeout(0.3)
    with pytest.raises(TimeoutError):
        third.recv(1)
    first.close()
    third.settimeout(20)
    assert AnswerReader(third).read_answer().status == 200


def test_one_request_more_than_limit_concurrency_is_a_503(serve: Serve, connect: Connect) -> None:
    server = serve("asgi_routes:app", "--limit-concurrency", "1")
    held = connect(server)
    held.sendall(b"GET /stubborn HTTP/1.1\r\nHost: h\r\n\r\n")
    wait_until(lambda: server.get("/hello").status == 503, "a 503")
    held.close()
    wait_until(lambda: server.get("/hello").status == 200, "room again")
    server.wait_for_log("limit_concurrency")


def test_patience_ends(serve: Serve, connect: Connect) -> None:
    server = serve(
        "asgi_routes:app", "--header-timeout", "1", "--body-timeout", "1", "--keep-alive", "1", "--write-timeout", "1"
    )
    half_head, half_body, idle, stuck = (connect(server) for _ in range(4))
    half_head.sendall(b"GET / HTTP/1.1\r\nHo")
    half_body.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
    idle.sendall(b"GET /hello HTTP/1.1\r\nHost: h\r\n\r\n")
    stuck.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
    assert AnswerReader(half_head).read_answer().status == 408
    assert AnswerReader(half_body).read_answer().status == 408
    reader = AnswerReader(idle)
    assert reader.read_answer().status == 200
    assert reader.read_to_close() == b""
    wait_until(lambda: b"endless ended" in server.get("/show-events").body, "the end of what nobody reads")


def test_a_unix_socket_is_served(serve: Serve) -> None:
    server = serve("asgi_routes:app", bind="unix:s.sock")
    address = f"unix:{server.directory / 's.sock'}"
    answer = server.get("/scope", address=address)
    assert b'"client": null' in answer.body
    assert answer.status == 200
    assert server.stop() == 0
    assert not (server.directory / "s.sock").exists()


def test_several_workers_share_the_listener(serve: Serve) -> None:
    server = serve("asgi_routes:app", "-w", "2", "--log-level", "debug")
    server.wait_for_ready(2)
    assert {server.get("/hello").status for _ in range(20)} == {200}
    assert server.stop() == 0


def test_the_access_log_and_hooks_see_each_request(serve: Serve) -> None:
    config = (
        "def pre_request(worker, req):\n    worker.log.info('pre %s %s', req.method, req.path)\n"
        "def post_request(worker, req, environ, resp):\n"
        "    worker.log.info('post %s %s', resp.status, environ['RAW_URI'])\n"
    )
    hooked = serve("asgi_routes:app", "--access-logfile", "-", config=config)
    plain = serve("asgi_routes:app", "--access-logfile", "-")
    for server in (hooked, plain):
        server.get("/hello?a=b", headers={"Referer": "r", "User-Agent": "u"})
        server.wait_for_log(r'127.0.0.1 - - \[.*\] "GET /hello\?a=b HTTP/1.1" 200 5 "r" "u"', stream="stdout")
    hooked.wait_for_log(r"pre GET /hello")
    hooked.wait_for_log(r"post 200 OK /hello\?a=b")


def test_a_python_access_log_has_the_same_line(serve: Serve) -> None:
    config = "import gunicorn.glogging\nclass Own(gunicorn.glogging.Logger):\n    pass\nlogger_class = Own\n"
    server = serve("asgi_routes:app", "--access-logfile", "-", config=config)
    server.get("/hello?a=b")
    server.wait_for_log(r'127.0.0.1 - - \[.*\] "GET /hello\?a=b HTTP/1.1" 200 5 "-" "-"', stream="stdout")


def test_workers_notice_that_the_arbiter_is_gone(serve: Serve) -> None:
    server = serve("asgi_routes:app")
    server.get("/hello")
    (pid,) = server.worker_pids()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid), "the end of the worker")


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_sys_exit_in_an_application_ends_its_worker_only(serve: Serve) -> None:
    server = serve("asgi_routes:app")
    server.get("/hello")
    (pid,) = server.worker_pids()
    assert server.get("/leave").status == 500
    server.wait_for_log("SystemExit raised in request GET /leave: this worker ends")
    server.wait_for_workers(1, without=[pid])
    assert server.get("/hello").status == 200


def test_another_exception_that_is_no_exception_ends_its_request_only(serve: Serve) -> None:
    server = serve("asgi_routes:app")
    server.get("/hello")
    pids = server.worker_pids()
    assert server.get("/other-exit").status == 500
    server.wait_for_log("Error handling request GET /other-exit")
    assert server.get("/hello").status == 200
    assert server.worker_pids() == pids


def test_a_client_that_leaves_is_no_error(serve: Serve) -> None:
    server = serve("asgi_routes:app", "--access-logfile", "-")
    with server.connection() as (sock, reader):
        sock.sendall(b"GET /until-left HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: "waiting until it leaves" in server.get("/show-events").text, "the application waits")
        sock.shutdown(socket.SHUT_WR)
        assert reader.read_to_close() == b""
    server.wait_for_log(r'"GET /until-left HTTP/1.1" 499', stream="stdout")
    with server.connection() as (sock, reader):
        sock.sendall(b"GET /until-raised HTTP/1.1\r\nHost: h\r\n\r\n")
        reader._fill()
    server.wait_for_log(r'"GET /until-raised HTTP/1.1" 200', stream="stdout")
    assert server.get("/raise-early").status == 500
    server.wait_for_log("Error handling request GET /raise-early")
    assert server.log.count("[ERROR]") == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_an_application_that_never_waits_learns_that_its_client_left(serve: Serve, loop: str) -> None:
    server = serve("asgi_routes:app", "--asgi-loop", loop)
    for _ in range(20):
        with server.connection() as (sock, reader):
            sock.sendall(b"GET /until-raised HTTP/1.1\r\nHost: h\r\n\r\n")
            reader._fill()
        assert server.get("/hello").status == 200


@pytest.mark.parametrize("trusted", [True, False])
def test_a_trusted_proxy_speaks_for_its_client(serve: Serve, trusted: bool) -> None:
    server: Server = serve("asgi_routes:app", "--forwarded-allow-ips", "127.0.0.1" if trusted else "192.0.2.1")
    body = server.get("/scope", headers={"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}).text
    assert ('"scheme": "https"' in body) is trusted
    assert ('"client": ["198.51.100.7", 0]' in body) is trusted
    assert re.search(r'"client": \["127.0.0.1", \d+\]', body) is None or not trusted
