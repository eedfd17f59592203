"""Timeouts and limits, with settings small enough to wait for: what is refused, what is closed, what is given back."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import re
import select
import socket
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import Serve, Server, wait_until

#: Timeouts of these tests; each is met by the loop within a tick of 50 ms, and by a loaded machine within much more.
SHORT_S = 0.6
LATEST_S = 15.0

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


def head(path: str, length: int, *fields: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {length}", *fields, "", ""]).encode()


@contextlib.contextmanager
def taking(at_least: float, at_most: float = LATEST_S) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert at_least <= time.monotonic() - start <= at_most


@pytest.fixture(scope="module")
def hasty(serve_module: Serve) -> Server:
    """A server without patience."""
    config = f"header_timeout = body_timeout = write_timeout = {SHORT_S}\nkeepalive = 1\n"
    return serve_module("traffic:app", config=config)


@pytest.mark.parametrize("part", [b"G", b"GET /x HTTP/1.1\r\nHost: a\r\n"])
@pytest.mark.parametrize("served", [False, True])
def test_a_head_that_does_not_come_is_a_408(hasty: Server, part: bytes, served: bool) -> None:
    with hasty.connection() as (sock, reader):
        if served:
            sock.sendall(GET)
            assert reader.read_answer().status == 200
        with taking(SHORT_S * 0.9):
            sock.sendall(part)
            answer = reader.read_answer()
        assert (answer.status, answer.header("Connection")) == (408, "close")
        assert reader.read_to_close() == b""
    hasty.wait_for_log(r"header_timeout.*\[408\]")


def test_a_head_that_comes_in_drops_is_a_408_all_the_same(hasty: Server) -> None:
    with hasty.connection() as (sock, reader), taking(SHORT_S * 0.9):
        sock.settimeout(0.1)
        for byte in b"GET /x HTTP/1.1\r\nX-Long: " + b"x" * 1000:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                assert reader.read_answer().status == 408
                break
        else:
            pytest.fail("no answer")


def test_a_connection_without_a_byte_is_closed_without_one(hasty: Server) -> None:
    with hasty.connection() as (_, reader), taking(SHORT_S * 0.9):
        assert reader.read_to_close() == b""


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("part", [b"", b"5\r\nabcde"])
def test_a_body_that_stops_coming_is_a_408(hasty: Server, framing: str, part: bytes) -> None:
    with hasty.connection() as (sock, reader), taking(SHORT_S * 0.9):
        sock.sendall(f"POST /digest HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode() + part)
        answer = reader.read_answer()
        assert (answer.status, answer.header("Connection")) == (408, "close")
    hasty.wait_for_log(r"body_timeout.*\[408\]")


def test_a_body_that_keeps_coming_may_take_its_time(hasty: Server) -> None:
    with hasty.connection() as (sock, reader), taking(SHORT_S * 1.5):
        sock.sendall(head("/input", 10))
        sock.settimeout(SHORT_S / 4)
        for _ in range(9):
            sock.sendall(b"x")
            with pytest.raises(TimeoutError):
                reader.read_answer()
        sock.settimeout(LATEST_S)
        sock.sendall(b"x")
        assert reader.read_answer().text == "memory 10 []"


def test_an_idle_connection_is_closed_after_keepalive(hasty: Server) -> None:
    with hasty.connection() as (sock, reader):
        sock.sendall(GET)
        assert reader.read_answer().status == 200
        with taking(0.9):
            assert reader.read_to_close() == b""


def test_a_client_that_reads_nothing_is_given_up(hasty: Server) -> None:
    with hasty.connection() as (streamed, _), hasty.connection() as (large, _):
        streamed.sendall(b"GET /stream?100000 HTTP/1.1\r\nHost: a\r\n\r\n")
        large.sendall(b"GET /large?50000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        for sock in (streamed, large):
            # A reset and not an end, which would wait behind bytes that nobody takes.
            poll = select.poll()
            poll.register(sock, select.POLLERR)
            assert poll.poll(LATEST_S * 1000), "not within the deadline"
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    assert hasty.get("/x").status == 200


def test_keepalive_holds_after_an_answer_without_a_timeout(serve: Serve) -> None:
    # While the answer is on its way nothing is timed, and the look that the head was given passes unused.
    server = serve("traffic:app", config=f"header_timeout = {SHORT_S}\nwrite_timeout = 0\nkeepalive = 1\n")
    with server.connection() as (sock, reader), taking(SHORT_S + 0.9):
        sock.sendall(b"GET /large?15000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        with server.connection() as (_, silent):
            # As long as its head may take, and a little longer: it was accepted after the other.
            assert silent.read_to_close() == b""
        assert len(reader.read_answer().body) == 15_000_000
        assert reader.read_to_close() == b""


@pytest.fixture(scope="module")
def spooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spooled")


@pytest.fixture(scope="module")
def spooling(serve_module: Serve, spooled: Path) -> Server:
    """A server that keeps bodies of up to 1000 bytes in memory, and 10,000 bytes in all."""
    config = f"body_buffer_size = 1000\nbody_buffer_total = 10000\ntmp_upload_dir = {str(spooled)!r}\n"
    return serve_module("traffic:app", config=config + "limit_request_body = 3000000\n")


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 65_536, 2_500_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_lies_in_a_file_without_a_name(spooling: Server, spooled: Path, size: int, chunked: bool) -> None:
    body = b"b" * size
    with spooling.connection() as (sock, reader):
        for _ in range(2):
            if chunked:
                frames = b"%x\r\n%s\r\n" % (size, body) if size else b""
                text = f"POST /input?{spooled} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                sock.sendall(text.encode() + frames + b"0\r\n\r\n")
            else:
                sock.sendall(head(f"/input?{spooled}", size))
                # In two, so that the body is not there with its head.
                wait_until(lambda: not unsent(sock), "the head is sent")
                sock.sendall(body)
            kind, length, files = reader.read_answer().text.split(" ", 2)
            assert (int(length), files) == (size, "[]")
            assert kind == "file" if size > 65_536 else kind in ("file", "memory")
            assert size > 1000 or kind == "memory"
    assert list(spooled.iterdir()) == []


def unsent(sock: socket.socket) -> int:
    """Bytes that the other side has not acknowledged."""
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    return count[0]


def test_bodies_held_together_go_to_files_beyond_the_sum(spooling: Server) -> None:
    held = [spooling.connect() for _ in range(12)]
    for sock in held:
        sock.sendall(head("/input", 1000) + b"x" * 999)
    # Served after what was ready before it, so that all of them are held when it is answered.
    assert spooling.get("/x").status == 200
    kinds = []
    for sock in held:
        assert sock.send(b"x") == 1
        found = re.search(rb"(memory|file) 1000", sock.recv(4096))
        assert found
        kinds.append(found[1])
        sock.close()
    assert kinds.count(b"file") >= 2 and kinds.count(b"memory") >= 8
    assert spooling.get("/input", method="POST", body=b"x" * 900).text == "memory 900 []"


def test_spool_files_are_given_back(spooling: Server) -> None:
    before = int(spooling.get("/fds").text)
    for _ in range(20):
        assert spooling.get("/input", method="POST", body=b"x" * 100_000).status == 200
    broken = [spooling.connect() for _ in range(20)]
    for sock in broken:
        sock.sendall(head("/input", 200_000) + b"x" * 100_000)
        sock.close()
    wait_until(lambda: int(spooling.get("/fds").text) <= before, "the descriptors of bodies are given back")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_beyond_the_limit_is_a_413(spooling: Server, framing: str) -> None:
    with spooling.connection() as (sock, reader):
        if framing == "length":
            sock.sendall(head("/input", 3_000_001, "Expect: 100-continue"))
        else:
            sock.sendall(b"POST /input HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2dc6c1\r\n")
        answer = reader.read_answer()
        assert (answer.status, answer.header("Connection")) == (413, "close")
    with spooling.connection() as (sock, reader):
        sock.sendall(head("/input", 3_000_000) + b"x" * 3_000_000)
        assert reader.read_answer().text == "file 3000000 []"


def test_a_body_that_cannot_be_stored_is_a_503(serve: Serve) -> None:
    config = "body_buffer_size = 10\ntmp_upload_dir = 'gone'\ndef post_fork(server, worker):\n"
    server = serve("traffic:app", config=config + "    import os; os.rmdir('gone')\n", launcher=made("gone"))
    answer = server.get("/input", method="POST", body=b"x" * 100_000)
    assert answer.status == 503
    server.wait_for_log(r"Cannot store a request body in gone \(tmp_upload_dir\)")
    assert server.get("/x").status == 200


def made(directory: str) -> tuple[str, ...]:
    """A launcher that makes a directory first."""
    return ("-c", f"import os, runpy; os.mkdir({directory!r}); runpy.run_module('bicorn', run_name='__main__')")


def limited(descriptors: int) -> tuple[str, ...]:
    """A launcher with few descriptors."""
    limit = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))"
    return ("-c", f"import resource, runpy; {limit}; runpy.run_module('bicorn', run_name='__main__')")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_out_of_descriptors_rests_and_recovers(serve: Serve, workers: str) -> None:
    server = serve("traffic:app", "--keep-alive", "60", "-w", workers, launcher=limited(48))
    pids = server.wait_for_workers(int(workers))
    clients = []
    with contextlib.ExitStack() as stack:
        # Not one of them says anything, so none may be closed to make room for another.
        clients = [stack.enter_context(server.connect()) for _ in range(130)]
        server.wait_for_log(r"Cannot accept connections: .*ulimit -n", count=int(workers))
        before = sum(map(cpu_seconds, pids))
        # Four rests of 250 ms: a worker that spins would burn all of that. It says so once a minute.
        clients[-1].settimeout(1)
        with pytest.raises(TimeoutError):
            clients[-1].recv(1)
        assert sum(map(cpu_seconds, pids)) - before < 0.5
        assert server.log.count("Cannot accept connections") == int(workers)
        clients[0].sendall(GET)
        assert clients[0].recv(100).startswith(b"HTTP/1.1 200")
    assert server.get("/x").status == 200
    assert server.worker_pids() == pids


def test_idle_connections_make_room_for_new_ones(serve: Serve) -> None:
    server = serve("traffic:app", "--keep-alive", "60", launcher=limited(48))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            sock = stack.enter_context(server.connect())
            sock.sendall(GET)
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert "Cannot accept connections" in server.log


def test_a_flood_of_requests_from_a_client_that_reads_nothing_is_not_hoarded(serve: Serve) -> None:
    server = serve("traffic:app")
    (pid,) = server.worker_pids()
    server.get("/x")
    before = resident_bytes(pid)
    with server.connection() as (sock, _):
        sock.settimeout(0.5)
        sent = 0
        flood = b"GET /large?1000 HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
        with contextlib.suppress(TimeoutError):
            while sent < 200_000_000:
                sent += sock.send(flood)
        assert sent < 200_000_000, "requests are read although their answers are not"
        assert resident_bytes(pid) - before < 4_000_000
        assert server.get("/x").status == 200


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
