"""The access log of running servers: written natively, written by Python, and written by the real Gunicorn."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from harness.server import Kind, Serve, Server, wait_until

# Everything but what is different each time: the time, the durations and the pid.
STEADY = '%(h)s %(l)s %(u)s "%(r)s" %(s)s %(m)s %(U)s %(q)s %(H)s %(b)s %(B)s "%(f)s" "%(a)s"'
FIELDS = " %({Host}i)s %({x-one}i)s %({Content-Type}i)s %({nope}i)s %({x-told}o)s %({content-LENGTH}o)s %({nope}o)s"
ENVIRON = " %({request_method}e)s %({wsgi.url_scheme}e)s %({nope}e)s %(nope)s 100%%"


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: test.example", "Connection: close", *fields, "", ""])
    return head.encode("latin-1") + body


PLAIN = [
    request("GET /"),
    request("GET /a%20b?q=1&r=%22"),
    request("GET /missing", "User-Agent: curl/8.5.0", "Referer: http://test.example/start?x=1"),
    request("GET /empty", "X-One: 1"),
    request("HEAD /moved"),
    request("POST /form", "Content-Type: text/plain", "Content-Length: 5", body=b"hello"),
    request("PUT /form", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    request("GET /", "Authorization: Basic YWxpY2U6c2VjcmV0"),
    request("GET /", "Authorization: Bearer abc"),
    request("GET /", 'User-Agent: a "quoted" agent'),
]
# What Gunicorn writes as it came, so that a line can be forged or misread.
ODD = [
    request("GET /%0d%0a127.0.0.1%20-%20forged"),
    request("GET /caf%c3%a9%1b%5b2J?%22%5c"),
    request("GET /", "User-Agent: back\\slash \\", "Referer: caf\xc3\xa9"),
    request("GET /", "Authorization: Basic YSIgYgo6eA=="),
    request("GET /", "Authorization: Basic !!"),
]


def access_lines(server: Server, requests: list[bytes]) -> list[str]:
    """Make the requests one after another and give the line of each."""
    path = server.directory / "access.log"
    for data in requests:
        assert server.raw(data).startswith(b"HTTP/1.")
    # Lines are flushed in batches, so they are waited for.
    wait_until(lambda: path.read_bytes().count(b"\n") >= len(requests), "all access lines")
    return path.read_text().splitlines()


def serve_logged(serve: Serve, fmt: str, kind: Kind = "bicorn", *, watched: bool = False) -> Server:
    env = {"WATCH_ACCESS": "1"} if watched else {}
    return serve("logged:app", "--access-logfile", "access.log", "--access-logformat", fmt, kind=kind, env=env)


def test_native_and_python_lines_are_the_same(serve: Serve) -> None:
    fmt = STEADY + FIELDS + ENVIRON + " %({app.object}e)s"
    native = access_lines(serve_logged(serve, fmt), PLAIN + ODD)
    python = access_lines(serve_logged(serve, fmt, watched=True), PLAIN + ODD)
    assert native == python


def test_lines_are_gunicorns(serve: Serve) -> None:
    ours = access_lines(serve_logged(serve, STEADY + FIELDS + ENVIRON), PLAIN)
    theirs = access_lines(serve_logged(serve, STEADY + FIELDS + ENVIRON, "gunicorn"), PLAIN)
    assert ours == theirs


@pytest.mark.parametrize("watched", [False, True])
def test_no_request_writes_anything_but_its_own_line(watched: bool, serve: Serve) -> None:
    lines = access_lines(serve_logged(serve, STEADY, watched=watched), ODD)
    assert len(lines) == len(ODD)
    assert all(re.fullmatch(r"[ -~]+", line) for line in lines)
    assert r"/\x0d\x0a127.0.0.1 - forged" in lines[0]
    assert r"/caf\xc3\xa9\x1b[2J" in lines[1]
    assert lines[2].endswith(r'"caf\xc3\xa9" "back\\slash \\"')
    assert r'a\" b\x0a "GET' in lines[3]


@pytest.mark.parametrize("watched", [False, True])
def test_times_and_durations_have_their_shape(watched: bool, serve: Serve) -> None:
    server = serve_logged(serve, "%(t)s %(T)s %(M)s %(D)s %(L)s %(p)s", watched=watched)
    (line,) = access_lines(server, PLAIN[:1])
    shape = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] (\d+) (\d+) (\d+) (\d+\.\d{6}) <(\d+)>"
    found = re.fullmatch(shape, line)
    assert found
    seconds, millis, micros, decimal, pid = found.groups()
    assert int(micros) // 1000 == int(millis) and int(micros) // 1_000_000 == int(seconds)
    assert decimal.replace(".", "").lstrip("0") == micros.lstrip("0")
    assert int(pid) in server.worker_pids()


@pytest.mark.parametrize("watched", [False, True])
def test_rotation_by_usr1_loses_no_line(watched: bool, serve: Serve) -> None:
    server = serve_logged(serve, "%(U)s", watched=watched)
    log = server.directory / "access.log"
    for turn in range(5):
        for number in range(20):
            server.raw(request(f"GET /{turn}-{number}"))
        log.rename(server.directory / f"access.log.{turn}")
        server.signal(signal.SIGUSR1)
        wait_until(log.exists, "the new file")
    server.stop()
    assert sorted(lines_of(server.directory)) == sorted(
        f"/{turn}-{number}" for turn in range(5) for number in range(20)
    )


def lines_of(directory: Path) -> list[str]:
    return [line for path in directory.glob("access.log*") for line in path.read_text().splitlines()]


@pytest.mark.parametrize("watched", [False, True])
def test_a_line_just_before_the_end_is_written(watched: bool, serve: Serve) -> None:
    server = serve_logged(serve, "%(U)s", watched=watched)
    server.raw(request("GET /last"))
    server.stop()
    assert lines_of(server.directory) == ["/last"]


def test_access_lines_go_to_standard_output_for_a_dash(serve: Serve) -> None:
    server = serve("logged:app", "--access-logfile", "-")
    server.raw(request("GET /there"))
    server.wait_for_log(r'127.0.0.1 - - \[.*\] "GET /there HTTP/1.1" 200 10 "-" "-"', stream="stdout")
