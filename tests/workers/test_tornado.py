"""The tornado worker: Tornado applications, WSGI ones in its container, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from harness.answers import AnswerReader
from harness.descriptors import connections
from harness.gate import Gate
from harness.load import load
from harness.server import DEADLINE_S, Serve, Server, wait_until

APP = (Path(__file__).parents[1] / "compat" / "projects" / "tornado_app.py").read_text()
GET = b"GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n"
Start = Callable[..., Server]


@pytest.fixture
def start(serve: Serve) -> Start:
    """Start the Tornado application."""

    def started(*args: str, **options: object) -> Server:
        return serve("tornado_app:app", "-k", "tornado", *args, files={"tornado_app.py": APP}, **options)  # type: ignore[arg-type]  # passed on

    return started


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    """The Tornado application, for the tests that leave it as it was."""
    return serve_module(
        "tornado_app:app", "-k", "tornado", "--limit-request-body", "1000", files={"tornado_app.py": APP}
    )


# -- requests --------------------------------------------------------------------------------------


def test_a_tornado_application_is_served(server: Server) -> None:
    assert json.loads(server.get("/").body)["scheme"] == "http"
    assert json.loads(server.get("/", method="POST", body=b"x" * 1000).body) == {"length": 1000}
    assert server.get("/missing").status == 404


def test_a_connection_serves_several_requests(server: Server) -> None:
    with server.connection() as (sock, reader):
        for _ in range(3):
            sock.sendall(GET % b"/")
            assert reader.read_answer().status == 200


def test_websockets_are_served(server: Server) -> None:
    with connect(server.url.replace("http", "ws") + "/ws") as websocket:
        websocket.send("one")
        assert websocket.recv(timeout=20) == "ONE"


def test_a_larger_body_than_limit_request_body_is_refused(server: Server) -> None:
    assert server.get("/", method="POST", body=b"x" * 1001).status == 400


@pytest.mark.parametrize(("trusted", "scheme"), [("127.0.0.0/8", "https"), ("192.0.2.1", "http")])
def test_a_trusted_proxy_says_the_scheme(start: Start, trusted: str, scheme: str) -> None:
    server = start("--forwarded-allow-ips", trusted)
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.9", "X-Real-Ip": "192.0.2.9"}
    seen = json.loads(server.get("/", headers=forwarded).body)
    assert (seen["scheme"], seen["remote"]) == (scheme, "127.0.0.1")
    assert json.loads(server.get("/").body)["scheme"] == "http"


def test_a_unix_socket_serves_the_same(start: Start) -> None:
    server = start(bind="unix:serve.sock")
    assert server.get("/", address=f"unix:{server.directory / 'serve.sock'}").status == 200


def test_keepalive_0_closes_after_each_answer(start: Start) -> None:
    with start("--keep-alive", "0").connection() as (sock, reader):
        sock.sendall(GET % b"/")
        assert reader.read_answer().header("Connection") == "close"
        assert reader.read_to_close() == b""


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    command = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    )
    subprocess.run([*command, *subject, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def test_tls_is_served(start: Start, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    config = (
        f"certfile, keyfile = {str(cert)!r}, {str(key)!r}\n"
        "def ssl_context(config, default_ssl_context_factory):\n"
        "    print('hook ssl_context', flush=True)\n"
        "    return default_ssl_context_factory()\n"
    )
    server = start(config=config)
    assert server.url.startswith("https://")
    with urllib.request.urlopen(f"{server.url}/", context=ssl.create_default_context(cafile=cert)) as answer:
        assert json.load(answer)["scheme"] == "https"
    assert "hook ssl_context" in server.stdout


def test_a_certificate_that_is_not_there_is_named(start: Start) -> None:
    server = start("--certfile", "gone.pem", wait=False)
    assert server.wait_exit() == 3
    assert "certfile = 'gone.pem', keyfile = None" in server.log
    assert "Traceback" not in server.log


# -- WSGI ------------------------------------------------------------------------------------------


def test_a_wsgi_application_is_served_in_tornados_container(serve: Serve) -> None:
    server = serve("seen:app", "-k", "tornado")
    answer = json.loads(server.get("/a%20b?c=d", method="POST", body=b"body").body)
    assert (answer["PATH_INFO"], answer["QUERY_STRING"], answer["body"]) == ("/a b", "c=d", "body")
    assert answer["RAW_URI"] == "/a%20b?c=d"


def test_a_wsgi_application_that_raises_is_answered_with_500(serve: Serve) -> None:
    server = serve("broken:app", "-k", "tornado", files={"broken.py": "def app(environ, start_response): 1 / 0\n"})
    assert server.get("/x").status == 500
    server.wait_for_log(r"Error handling request GET /x\nTraceback[\s\S]*ZeroDivisionError")


#: What an application may say, and what the client then reads: status, body, Content-Length.
ANSWERS = [
    ("/?status=204&length=5", 204, b"", None),
    ("/?status=204&stream=1&blocks=3", 204, b"", None),
    ("/?status=304&length=5", 304, b"", "5"),
    ("/?length=7&blocks=3", 200, b"x" * 7, "7"),
    ("/?length=0", 200, b"", "0"),
    ("/?field=Transfer-Encoding:chunked", 200, b"xxxxx", "5"),
    ("/?field=Connection:close&field=Upgrade:h2c", 200, b"xxxxx", "5"),
    ("/?status=100", 500, b"", "0"),
    ("/?status=20", 500, b"", "0"),
    ("/?status=1000", 500, b"", "0"),
]


@pytest.mark.parametrize(("target", "status", "body", "length"), ANSWERS)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_no_byte_of_a_wsgi_answer_is_taken_for_the_next(
    serve_module: Serve, threads: str, target: str, status: int, body: bytes, length: str | None
) -> None:
    server = serve_module("framing:app", "-k", "tornado", "--threads", threads)
    with server.connection() as (sock, reader):
        for method in ("GET", "HEAD"):
            sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            answer = reader.read_answer(method)
            assert (answer.status, answer.body) == (status, body if method == "GET" else b"")
            assert answer.header_values("Content-Length") == ([] if length is None else [length])
            assert [answer.header(name) for name in ("Transfer-Encoding", "Upgrade")] == [None, None]
            assert len(answer.header_values("Date")) == 1
        sock.sendall(GET % b"/?length=5")
        assert reader.read_answer().body == b"xxxxx"


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("error", ["StopIteration", "GeneratorExit"])
def test_what_no_future_holds_is_answered_with_500(serve: Serve, error: str, threads: str) -> None:
    app = f"def app(environ, start_response):\n    raise {error}\n"
    server = serve("broken:app", "-k", "tornado", "--threads", threads, files={"broken.py": app})
    assert server.get("/").status == 500
    server.wait_for_log(f"the application raised {error}")


def test_a_wsgi_application_starts_its_answer_once(serve: Serve) -> None:
    app = """
def app(environ, start_response):
    write = start_response("200 OK", [])
    write(b"written,")
    try:
        start_response("201 Created", [])
    except AssertionError:
        yield b"refused,"
    yield from environ["wsgi.file_wrapper"](__import__("io").BytesIO(b"of a file"))
"""
    answer = serve("once:app", "-k", "tornado", files={"once.py": app}).get("/")
    assert (answer.status, answer.body) == (200, b"written,refused,of a file")


def test_threads_run_wsgi_applications_beside_each_other(serve: Serve, gate: Gate) -> None:
    server = serve("gated:app", "-k", "tornado", "--threads", "2", env=gate.env)
    with server.connection() as (first, first_reader), server.connection() as (second, second_reader):
        for sock in (first, second):
            sock.sendall(GET % b"/")
            gate.wait_started()
        gate.release(2)
        assert first_reader.read_answer().body == second_reader.read_answer().body == b"done"


def test_threads_are_of_no_use_to_a_tornado_application(start: Start) -> None:
    start("--threads", "2").wait_for_log("threads = 2 has no effect: a Tornado application runs in its loop")


def test_an_asgi_application_is_refused(serve: Serve) -> None:
    server = serve(
        "mine:app", "-k", "tornado", files={"mine.py": "async def app(scope, receive, send): ...\n"}, wait=False
    )
    assert server.wait_exit() == 4
    assert "is an ASGI application and the tornado worker serves WSGI" in server.log


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_in_flight_is_answered(start: Start, gate: Gate, sig: signal.Signals) -> None:
    server = start(env=gate.env)
    (before,) = server.worker_pids()
    with server.connection() as (sock, reader), server.connection() as (idle, idle_reader):
        idle.sendall(GET % b"/")
        assert idle_reader.read_answer().header("Connection") is None
        sock.sendall(GET % b"/gated")
        gate.wait_started()
        os_signal(server, sig)
        # While the other is waited for, idle connections are closed, or go on in the worker that follows.
        if sig is signal.SIGTERM:
            assert idle_reader.read_to_close() == b""
        else:
            wait_until(lambda: connections(before, server.port) == 1, "the idle connection changes workers")
            assert worker_of(idle, idle_reader) != before
        gate.release()
        answer = reader.read_answer()
        assert (answer.body, answer.header("Connection")) == (b"done", "close")
    if sig is signal.SIGTERM:
        assert server.wait_exit() == 0
    else:
        server.wait_for_workers(1, without=[before])


def test_keep_alive_clients_do_not_notice_that_workers_change(start: Start) -> None:
    server = start("--log-level", "debug", config="workers = 2\nmax_requests = 40\n")
    with load(server, keep_alive=32, rate=80) as traffic:
        server.wait_for_log(r"Worker exiting \(pid: ", count=2)
        (server.directory / "server.conf.py").write_text("workers = 2\n")
        before = server.worker_pids()
        server.signal(signal.SIGHUP)
        server.wait_for_log("Reload done")
        server.wait_for_workers(2, without=before)
        server.signal(signal.SIGTTIN)
        server.wait_for_workers(3)
        server.signal(signal.SIGTTOU)
        server.wait_for_workers(2)
        traffic.wait_for(50)
    assert (traffic.failures, traffic.retried, traffic.counts["idle_closed"]) == ([], [], 0)


def test_a_connection_that_changed_workers_is_closed_when_it_was_idle_for_too_long(start: Start) -> None:
    server = start("--keep-alive", "3", "--header-timeout", "3")
    (before,) = server.worker_pids()
    with server.connection() as (sock, reader):
        assert worker_of(sock, reader) == before
        server.signal(signal.SIGHUP)
        wait_until(lambda: connections(before, server.port) == 0, "the idle connection changes workers")
        assert worker_of(sock, reader) != before
        assert reader.read_to_close() == b""


def test_an_idle_connection_over_tls_is_closed_by_a_worker_that_leaves(
    start: Start, certificate: tuple[Path, Path]
) -> None:
    cert, key = certificate
    server = start("--certfile", str(cert), "--keyfile", str(key))
    (before,) = server.worker_pids()
    trusting = ssl.create_default_context(cafile=cert)
    with trusting.wrap_socket(server.connect(), server_hostname="127.0.0.1") as sock:
        reader = AnswerReader(sock)
        assert worker_of(sock, reader) == before
        server.signal(signal.SIGHUP)
        assert reader.read_to_close() == b""
    (after,) = server.wait_for_workers(1, without=[before])
    with trusting.wrap_socket(server.connect(), server_hostname="127.0.0.1") as sock:
        assert worker_of(sock, AnswerReader(sock)) == after


def test_connections_beyond_worker_connections_wait_in_the_listen_queue(start: Start) -> None:
    server = start("--worker-connections", "2", "--keep-alive", "60")
    with server.connection() as one, server.connection() as other, server.connection() as (waiting, reader):
        for sock, answers in (one, other):
            worker_of(sock, answers)
        waiting.sendall(GET % b"/")
        waiting.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        waiting.settimeout(DEADLINE_S)
        one[0].close()
        assert reader.read_answer().status == 200
        worker_of(*other)


def test_half_a_head_is_waited_for_by_a_worker_that_leaves(start: Start, gate: Gate) -> None:
    server = start("--log-level", "debug", env=gate.env)
    (before,) = server.wait_for_ready(1)
    with server.connection() as (sock, reader), server.connection() as (half, half_reader):
        sock.sendall(GET % b"/gated")
        gate.wait_started()
        half.sendall((GET % b"/")[:20])
        server.signal(signal.SIGHUP)
        server.wait_for_log("Reload done")
        half.settimeout(0.5)  # longer than an idle connection would stay
        with pytest.raises(TimeoutError):
            half.recv(1)
        half.settimeout(DEADLINE_S)
        half.sendall((GET % b"/")[20:])
        answer = half_reader.read_answer()
        assert (json.loads(answer.body)["pid"], answer.header("Connection")) == (before, "close")
        gate.release()
        assert reader.read_answer().body == b"done"


def worker_of(sock: socket.socket, reader: AnswerReader) -> int:
    """Ask which worker answers on a connection that is to be kept."""
    sock.sendall(GET % b"/")
    answer = reader.read_answer()
    assert answer.header("Connection") is None
    pid: int = json.loads(answer.body)["pid"]
    return pid


def os_signal(server: Server, sig: signal.Signals) -> None:
    """Send the signal and wait until the arbiter has seen it."""
    server.signal(sig)
    server.wait_for_log(f"Handling signal: {sig.name.removeprefix('SIG').lower()}")


def test_a_request_over_graceful_timeout_is_given_up(start: Start, gate: Gate) -> None:
    server = start("--graceful-timeout", "1", env=gate.env)
    with server.connection() as (sock, reader):
        sock.sendall(GET % b"/gated")
        gate.wait_started()
        assert server.stop() == 0
        assert reader.read_to_close() == b""


def test_a_stuck_loop_is_named(start: Start) -> None:
    server = start("-t", "1")
    (before,) = server.worker_pids()
    with server.connect() as sock:
        sock.sendall(GET % b"/stuck")
        server.wait_for_log(r"WORKER TIMEOUT \(pid:\d+\)")
        server.wait_for_log(r'tornado_app\.py", line \d+,? in get\n')
        server.wait_for_workers(1, without=[before])
