"""WebSockets: the handshake, how they end, and what a client can make them cost."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import zlib
from pathlib import Path

import pytest

from harness.server import Serve, Server, wait_until
from harness.websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    KEY,
    PING,
    PONG,
    RSV1,
    TEXT,
    Frame,
    WebSocketClient,
    close,
    frame,
)

MARKS = itertools.count()
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
MIB = 1 << 20


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(serve_module: Serve, request: pytest.FixtureRequest) -> Server:
    arguments = ("--asgi-loop", request.param, "--access-logfile", "-", "--websocket-max-queue", "4")
    return serve_module("websocket_echo:app", "-k", "asgi", *arguments)


@pytest.fixture
def mark() -> str:
    """A query that no other test uses."""
    return f"m{next(MARKS)}x"


def client_of(server: Server, path: str, **kwargs: object) -> WebSocketClient:
    return WebSocketClient(("127.0.0.1", server.port), path, **kwargs)  # type: ignore[arg-type]  # passed on as they are


def noted(server: Server, mark: str, words: str) -> re.Match[str]:
    """Wait for a line of the application's."""
    return server.wait_for_log(rf"noted {mark} {words}\n")


def resident_bytes(server: Server) -> int:
    """The memory of the only worker."""
    (worker,) = server.worker_pids()
    pages = int((Path("/proc") / str(worker) / "statm").read_text().split()[1])
    return pages * 4096


# -- the handshake ---------------------------------------------------------------------------------


def test_a_handshake_is_answered_with_the_hash_of_its_key(server: Server) -> None:
    with client_of(server, "/echo") as client:
        assert client.answer.status == 101
        assert client.answer.header("Sec-WebSocket-Accept") == ACCEPT
        assert client.answer.header("Upgrade") == "websocket" and client.answer.header("Connection") == "Upgrade"
        assert client.answer.header("Sec-WebSocket-Protocol") is None
        assert client.answer.header("Sec-WebSocket-Extensions") is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": KEY + "\r\nSec-WebSocket-Key: " + KEY}, 400),
        ({"Sec-WebSocket-Version": None}, 400),
        ({"Sec-WebSocket-Version": "12"}, 426),
        ({"Sec-WebSocket-Protocol": "a b"}, 400),
        ({"Sec-WebSocket-Extensions": "a;"}, 400),
        ({"Content-Length": "1"}, 400),
    ],
)
def test_a_handshake_that_breaks_a_rule_is_refused(server: Server, fields: dict[str, str | None], status: int) -> None:
    with client_of(server, "/echo", fields=fields) as client:
        assert client.answer.status == status
        assert client.answer.header("Sec-WebSocket-Version") == ("13" if status == 426 else None)
        assert client.sock.recv(1) == b""


@pytest.mark.parametrize("fields", [{"Upgrade": "h2c"}, {"Upgrade": None}, {"Connection": "keep-alive"}])
def test_what_asks_for_something_else_is_a_plain_request(server: Server, fields: dict[str, str | None]) -> None:
    with client_of(server, "/echo", fields=fields) as client:
        assert (client.answer.status, client.answer.body) == (200, b"hello")


def test_the_same_handshake_again_is_a_handshake_again(server: Server) -> None:
    for _ in range(4):
        with client_of(server, "/echo") as client:
            assert client.answer.status == 101


def test_an_application_chooses_the_subprotocol_and_adds_fields(server: Server) -> None:
    with client_of(server, "/subprotocol", fields={"Sec-WebSocket-Protocol": "first, last"}) as client:
        assert client.answer.header("Sec-WebSocket-Protocol") == "last"
        assert client.answer.header("X-Chosen") == "last"


def test_frames_that_follow_the_handshake_at_once_are_read(server: Server) -> None:
    with client_of(server, "/echo", eager=frame(FIN | TEXT, b"early")) as client:
        assert client.receive() == Frame(FIN | TEXT, b"early")


def test_the_scope_is_that_of_a_websocket(server: Server) -> None:
    with client_of(server, "/scope_text?a=b", fields={"Sec-WebSocket-Protocol": "x, y"}) as client:
        received = client.receive()
        assert received is not None
        scope = dict(eval(received.payload))
    assert scope.pop("extensions") == {"websocket.http.response": {}}
    assert scope == {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/scope_text",
        "raw_path": b"/scope_text",
        "query_string": b"a=b",
        "root_path": "",
        "subprotocols": ["x", "y"],
        "bicorn.deadline": "<Deadline: never>",
    }


def test_behind_a_proxy_that_speaks_tls_the_scheme_is_wss(server: Server) -> None:
    with client_of(server, "/scope_text", fields={"X-Forwarded-Proto": "https"}) as client:
        received = client.receive()
        assert received is not None and b"('scheme', 'wss')" in received.payload


def test_a_wsgi_application_opens_no_websocket(serve: Serve) -> None:
    server = serve("hello:app", "-k", "asgi")
    with client_of(server, "/") as client:
        assert client.answer.status == 403
    assert "Traceback" not in server.log


def test_compression_is_agreed_on_message_by_message(server: Server) -> None:
    with client_of(server, "/echo", fields=DEFLATE) as client:
        agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        assert client.answer.header("Sec-WebSocket-Extensions") == agreed
        message = b"the same words again and again " * 50
        for _ in range(2):
            client.send(frame(FIN | TEXT, message))
            received = client.receive()
            assert received is not None and received.first == FIN | RSV1 | TEXT
            assert len(received.payload) < len(message) / 5
            assert zlib.decompressobj(wbits=-15).decompress(received.payload + b"\x00\x00\xff\xff") == message
        client.send(frame(FIN | TEXT, b"too short to gain"))
        assert client.receive() == Frame(FIN | TEXT, b"too short to gain")


def test_takeover_and_none_are_settings(serve: Serve) -> None:
    message = b"the same words in the same order, once more"
    server = serve("websocket_echo:app", "-k", "asgi", "--websocket-compression", "connection")
    with client_of(server, "/echo", fields=DEFLATE) as client:
        assert client.answer.header("Sec-WebSocket-Extensions") == "permessage-deflate"
        stream = zlib.decompressobj(wbits=-15)
        lengths = []
        for _ in range(3):
            client.send(frame(FIN | TEXT, message))
            received = client.receive()
            assert received is not None
            assert stream.decompress(received.payload + b"\x00\x00\xff\xff") == message
            lengths.append(len(received.payload))
        assert lengths[1] < lengths[0] / 2
    server = serve("websocket_echo:app", "-k", "asgi", "--websocket-compression", "off")
    with client_of(server, "/echo", fields=DEFLATE) as client:
        assert client.answer.status == 101 and client.answer.header("Sec-WebSocket-Extensions") is None


# -- refusals and ends -----------------------------------------------------------------------------


def test_a_close_before_the_accept_is_a_403(server: Server, mark: str) -> None:
    with client_of(server, f"/refuse?mark={mark}") as client:
        assert client.answer.status == 403
        assert client.sock.recv(1) == b""
    noted(server, mark, "then websocket.connect")


def test_a_denial_is_the_response_that_the_application_gives(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(
            b"GET /deny HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n"
        )
        answer = reader.read_answer()
    assert (answer.status, answer.header("X-Why"), answer.body) == (401, "no token", b"no entry")


def test_an_application_that_fails_gives_500_or_1011(server: Server) -> None:
    with client_of(server, "/fail_early") as client:
        assert client.answer.status == 500
    with client_of(server, "/return_early") as client:
        assert client.answer.status == 500
    with client_of(server, "/fail_late") as client:
        client.send(close(1000))
        first, last = client.receive_all()
        assert first.payload == b"so far so good" and last.close_code == 1011
    with client_of(server, "/return_late") as client:
        client.send(close(1000))
        (last,) = client.receive_all()
        assert last.close_code == 1000
    server.wait_for_log("RuntimeError: before the accept")
    server.wait_for_log("RuntimeError: after the accept")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (close(1000, b"bye"), "1000 'bye'"),
        (close(4321), "4321 ''"),
        (close(), "1005 ''"),
        (frame(FIN | TEXT, b"\xff"), "1006 'a text message is not UTF-8'"),
        (b"", "1006 ''"),
    ],
)
def test_the_application_learns_how_it_ended(server: Server, mark: str, sent: bytes, told: str) -> None:
    with client_of(server, f"/echo?mark={mark}") as client:
        client.send(sent)
        if sent:
            client.receive_all()
    noted(server, mark, f"disconnect {re.escape(told)}")


def test_the_application_closes_with_code_and_reason(server: Server, mark: str) -> None:
    with client_of(server, f"/close?mark={mark}&code=4001&reason=enough") as client:
        assert client.receive() == Frame(FIN | CLOSE, (4001).to_bytes(2, "big") + b"enough")
        client.send(close(4001))
        assert client.receive() is None
    noted(server, mark, "disconnect 4001 ''")
    noted(server, mark, "send raised RuntimeError")


def test_messages_before_a_close_are_received_first(server: Server, mark: str) -> None:
    with client_of(server, f"/deaf?mark={mark}&seconds=0.2") as client:
        client.send(*(frame(FIN | TEXT, b"x") for _ in range(20)), close(1000))
        client.receive_all()
    noted(server, mark, "disconnect 1000 ''")


def test_an_application_that_gives_up_waiting_loses_no_message(server: Server) -> None:
    with client_of(server, "/impatient") as client:
        for number in range(300):
            client.send(frame(FIN | TEXT, b"%d" % number))
            assert client.receive() == Frame(FIN | TEXT, b"%d" % number)


def test_one_that_accepts_before_it_asks_is_told_of_the_connect_all_the_same(server: Server, mark: str) -> None:
    with client_of(server, f"/hasty?mark={mark}") as client:
        client.send(frame(FIN | TEXT, b"hello"), close(1000))
        client.receive_all()
    noted(server, mark, "received websocket.connect hello")


def test_hooks_see_the_request_of_a_websocket(serve: Serve) -> None:
    config = """
def pre_request(worker, req):
    worker.log.info("before %s %s", req.method, req.path)
def post_request(worker, req, environ, resp):
    worker.log.info("after %s %s", req.path, resp.status)
"""
    server = serve("websocket_echo:app", "-k", "asgi", config=config)
    with client_of(server, "/echo") as client:
        server.wait_for_log("before GET /echo")
        assert "after" not in server.log
        client.send(close(1000))
        client.receive_all()
    server.wait_for_log("after /echo 101")


def test_what_asgi_forbids_is_an_error_and_nothing_is_sent(server: Server, mark: str) -> None:
    with client_of(server, f"/misuse?mark={mark}") as client:
        client.send(close(1000))
        (last,) = client.receive_all()
        assert last.close_code == 1000
    noted(server, mark, "refused: RuntimeError .*websocket.send.*the WebSocket is closed")
    refused = re.findall(rf"noted {mark} refused: (\w+)", server.log)
    assert refused == [
        *("RuntimeError", "RuntimeError", "ValueError", "RuntimeError"),
        *("RuntimeError", "RuntimeError", "RuntimeError", "TypeError", "ValueError", "ValueError"),
        *("RuntimeError", "RuntimeError", "RuntimeError"),
    ]
    assert f"noted {mark} accepted" not in server.log


def test_the_access_log_has_one_line_when_it_is_over(server: Server, mark: str) -> None:
    with client_of(server, f"/echo?mark={mark}") as client:
        client.send(frame(FIN | TEXT, b"hello"))
        assert client.receive() == Frame(FIN | TEXT, b"hello")
        assert mark not in server.stdout
    found = server.wait_for_log(rf"\"GET /echo\?mark={mark} HTTP/1.1\" (\d+) (\d+)", stream="stdout")
    assert found.groups() == ("101", "5")


# -- what clients can make it cost -----------------------------------------------------------------


def test_a_flood_of_pings_is_answered_in_bounded_memory(server: Server) -> None:
    with client_of(server, "/echo", receive_buffer=4096) as client:
        before = resident_bytes(server)
        flood = frame(FIN | PING, b"x" * 100) * 10_000
        for _ in range(20):
            # The client reads nothing: its Pings are still taken, and of their answers only the last is kept.
            client.sock.sendall(flood)
        assert resident_bytes(server) - before < 16 * MIB
        client.send(frame(FIN | PING, b"last"))
        while client.receive() != Frame(FIN | PONG, b"last"):
            pass


def test_tiny_fragments_cost_no_more_than_their_bytes(server: Server) -> None:
    with client_of(server, "/echo") as client:
        before = resident_bytes(server)
        client.send(frame(BINARY), frame(CONTINUATION) * 200_000, frame(FIN | CONTINUATION, b"x"))
        assert client.receive() == Frame(FIN | BINARY, b"x")
        assert resident_bytes(server) - before < 8 * MIB


def test_compressed_zeros_wait_compressed(server: Server, mark: str) -> None:
    stream = zlib.compressobj(wbits=-15)
    bomb = (stream.compress(bytes(8 * MIB)) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    with client_of(server, f"/deaf?mark={mark}&seconds=1", fields=DEFLATE) as client:
        before = resident_bytes(server)
        client.send(frame(FIN | RSV1 | BINARY, bomb) * 20, frame(FIN | TEXT, b"count"))
        reply = client.receive()
        # Twenty of them would be 160 MiB; at a time there is one in the queue and one being made.
        assert reply == Frame(FIN | TEXT, b"21")
        assert resident_bytes(server) - before < 64 * MIB


def test_reading_stops_while_the_application_is_behind(server: Server, mark: str) -> None:
    with client_of(server, f"/deaf?mark={mark}&seconds=3") as client:
        before = resident_bytes(server)
        client.sock.settimeout(1)
        with pytest.raises(TimeoutError):
            client.sock.sendall(frame(FIN | BINARY, b"x" * 65536) * 1024)
        # What it took stands in the kernel's buffers; the queue has four messages, and 256 KiB, at the most.
        assert resident_bytes(server) - before < 4 * MIB


def test_send_waits_for_a_client_that_does_not_read(server: Server, mark: str) -> None:
    with client_of(server, f"/pour?mark={mark}", receive_buffer=4096):
        noted(server, mark, r"sent \d+")
        counts: list[str] = []

        def settled() -> bool:
            counts.append(re.findall(rf"noted {mark} sent (\d+)", server.log)[-1])
            return len(counts) > 20 and counts[-20] == counts[-1]

        wait_until(settled, "the application waits")
        assert int(counts[-1]) < 200  # the kernel's buffer of some megabytes, and one block
    noted(server, mark, "gone")


# -- time ------------------------------------------------------------------------------------------


def test_a_silent_client_gets_pings_and_is_cut_if_it_answers_none(serve: Serve) -> None:
    server = serve(
        "websocket_echo:app", "-k", "asgi", "--websocket-ping-interval", "0.5", "--websocket-ping-timeout", "1"
    )
    with client_of(server, "/echo?mark=alive") as client:
        for _ in range(2):
            ping = client.receive()
            assert ping is not None and ping.opcode == PING
            client.send(frame(FIN | PONG, ping.payload))
        frames = client.receive_all()
    assert [end.opcode for end in frames] == [PING, CLOSE] and frames[-1].close_code == 1011
    noted(server, "alive", "disconnect 1006 'the client answered no Ping'")


def test_a_close_that_is_not_answered_ends_anyway(serve: Serve) -> None:
    server = serve("websocket_echo:app", "-k", "asgi", "--websocket-ping-timeout", "1")
    with client_of(server, "/close?mark=c&code=1000") as client:
        assert [end.close_code for end in client.receive_all()] == [1000]
    noted(server, "c", "disconnect 1006 ''")


def test_a_stop_says_that_the_server_goes_away(serve: Serve) -> None:
    server = serve("websocket_echo:app", "-k", "asgi")
    with client_of(server, "/echo?mark=a") as client, client_of(server, "/echo?mark=b") as other:
        server.signal(signal.SIGTERM)
        for each in (client, other):
            received = each.receive()
            assert received is not None and received.close_code == 1001
            each.send(close(1001))
            assert each.receive() is None
        assert server.wait_exit(timeout=5) == 0
    noted(server, "a", "disconnect 1001 ''")


def test_one_that_is_accepted_during_a_stop_is_told_at_once(serve: Serve) -> None:
    server = serve("websocket_echo:app", "-k", "asgi")
    with server.connect() as sock:
        sock.sendall(
            b"GET /slow?mark=s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n"
        )
        noted(server, "s", "asked")
        server.signal(signal.SIGTERM)
        data = b""
        while not data.endswith(b"\x88\x02\x03\xe9"):
            received = sock.recv(4096)
            assert received, data
            data += received
        assert data.startswith(b"HTTP/1.1 101 ")
        sock.sendall(close(1001))
        assert server.wait_exit(timeout=5) == 0


def test_a_quick_stop_says_so_too(serve: Serve) -> None:
    server = serve("websocket_echo:app", "-k", "asgi", "--graceful-timeout", "20")
    with client_of(server, "/echo") as client:
        server.signal(signal.SIGQUIT)
        received = client.receive()
        assert received is not None and received.close_code == 1001
    assert server.wait_exit(timeout=5) == 0


def test_a_reload_leaves_them_until_graceful_timeout(serve: Serve) -> None:
    server = serve("websocket_echo:app", "-k", "asgi", "--graceful-timeout", "4", "--log-level", "debug")
    server.wait_for_ready(1)
    with client_of(server, "/echo?mark=a") as client:
        old = server.worker_pids()
        server.signal(signal.SIGHUP)
        server.wait_for_ready(2)
        client.send(frame(FIN | TEXT, b"still there"))
        assert client.receive() == Frame(FIN | TEXT, b"still there")
        received = client.receive()
        assert received is not None and received.close_code == 1012
        client.send(close(1012))
        assert client.receive() is None
        server.wait_for_workers(1, without=old)
    assert "SIGKILL" not in server.log


def test_a_client_that_resets_is_only_gone(server: Server, mark: str) -> None:
    with client_of(server, f"/echo?mark={mark}") as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    noted(server, mark, "disconnect 1006 ''")
