"""How the end of an answer is shown: lengths, chunks, closes, and answers that have no body."""

from __future__ import annotations

import pytest

from harness.server import Serve, Server

KEEP = "GET {} HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = "GET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HOP_BY_HOP = [
    "Connection:x-one", "Keep-Alive:timeout=5", "Proxy-Authenticate:Basic", "Proxy-Authorization:x", "TE:trailers",
    "Trailers:x", "Transfer-Encoding:chunked", "Transfer-Encoding:gzip", "Upgrade:h2c", "Proxy-Connection:close",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("framing:app")


def raw(server: Server, text: str) -> tuple[str, bytes]:
    head, _, body = server.raw(text.encode()).partition(b"\r\n\r\n")
    return head.decode("latin-1"), body


@pytest.mark.parametrize("query", ["length=5", "", "stream=1", "length=5&stream=1"])
def test_head_is_answered_without_a_body(server: Server, query: str) -> None:
    head, body = raw(server, f"HEAD /?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 Status") and body == b""
    assert ("Content-Length: 5" in head) == ("length" in query)


def test_a_head_that_the_settings_refuse_is_answered_without_a_body(serve: Serve) -> None:
    """What the parser refuses is in the corpus. RFC 9110, 9.3.2."""
    server = serve("framing:app", "--header-map", "refuse")
    for method, has_body in [("HEAD", False), ("GET", True)]:
        head, body = raw(server, f"{method} / HTTP/1.1\r\nHost: a\r\nX_Y: z\r\n\r\n")
        assert head.startswith("HTTP/1.1 400 ") and bool(body) == has_body


@pytest.mark.parametrize("query", ["", "&length=5", "&stream=1", "&bytes=0", "&blocks=0"])
@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_keeps_the_connection(server: Server, status: int, query: str) -> None:
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(KEEP.format(f"/?status={status}{query}").encode())
            answer = reader.read_answer()
            assert answer.status == status and answer.header("Transfer-Encoding") is None
            assert answer.header("Connection") == "keep-alive"
            assert answer.header("Content-Length") == ("5" if status == 304 and "length" in query else None)
        assert reader.pending == b""


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_a_status_that_ends_no_request_is_refused(server: Server, status: int) -> None:
    """Else the client took the answer to its next request for the answer to this one (RFC 9110, 15.2)."""
    head, _ = raw(server, KEEP.format(f"/?status={status}") * 2)
    assert head.startswith("HTTP/1.1 500 ") and "Connection: close" in head
    server.wait_for_log(f"invalid status {status}: it ends no request")


def test_nothing_follows_a_switch_of_protocols(server: Server) -> None:
    head, body = raw(server, KEEP.format("/?status=101&length=5&field=Connection:upgrade&field=Upgrade:websocket") * 2)
    assert head.startswith("HTTP/1.1 101 ") and "Connection: upgrade" in head
    assert "Content-Length" not in head and body == b""


@pytest.mark.parametrize(("status", "length"), [(200, None), (299, None), (407, "5")])
def test_a_connect_that_succeeds_says_nothing_of_framing(server: Server, status: int, length: str | None) -> None:
    """RFC 9110, 9.3.6."""
    with server.connection() as (sock, reader):
        sock.sendall(f"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nX-Query: status={status}&length=5\r\n\r\n".encode())
        answer = reader.read_answer("HEAD" if status < 300 else "CONNECT")
        assert (answer.status, answer.header("Content-Length")) == (status, length)
        assert (answer.header("Connection"), answer.header("Transfer-Encoding")) == ("close", None)
        assert reader.read_to_close() == b""


@pytest.mark.parametrize("stream", ["", "&stream=1"])
def test_more_than_was_promised_is_not_sent(server: Server, stream: str) -> None:
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(KEEP.format(f"/?length=7&blocks=3{stream}").encode())
            answer = reader.read_answer()
            assert (answer.header("Content-Length"), answer.body) == ("7", b"x" * 7)
    server.wait_for_log(r"promised 7 bytes for GET /\?length=7\S* and gave more: the rest was dropped")


@pytest.mark.parametrize("stream", ["", "&stream=1"])
def test_less_than_was_promised_closes_the_connection(server: Server, stream: str) -> None:
    head, body = raw(server, KEEP.format(f"/?length=50{stream}"))
    assert "Content-Length: 50" in head and body == b"x" * 5
    server.wait_for_log(r"promised 50 bytes for GET /\?length=50\S* and gave 5")


def test_a_length_without_a_body_at_all_closes_too(server: Server) -> None:
    head, body = raw(server, KEEP.format("/?length=50&blocks=0&stream=1"))
    assert "Content-Length: 50" in head and body == b""


def test_http_1_0_gets_no_chunks(server: Server) -> None:
    head, body = raw(server, "GET /?stream=1&blocks=2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert "Transfer-Encoding" not in head and "Connection: close" in head and body == b"x" * 10


def test_http_1_0_may_keep_alive_when_the_length_is_known(server: Server) -> None:
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(b"GET /?length=5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = reader.read_answer()
            assert (answer.header("Connection"), answer.body) == ("keep-alive", b"xxxxx")


@pytest.mark.parametrize("field", HOP_BY_HOP)
def test_fields_about_the_connection_are_the_servers(server: Server, field: str) -> None:
    with server.connection() as (sock, reader):
        for _ in range(2):
            sock.sendall(KEEP.format(f"/?field={field}&field=X-Own:1").encode())
            answer = reader.read_answer()
            assert answer.body == b"xxxxx" and answer.header("X-Own") == "1"
            assert answer.header_values("Connection") == ["keep-alive"]
            assert field.split(":")[0] == "Connection" or answer.header(field.split(":")[0]) is None


def test_an_application_may_ask_for_a_close(server: Server) -> None:
    head, body = raw(server, KEEP.format("/?field=Connection:close"))
    assert head.count("Connection: close") == 1 and body == b"xxxxx"


def test_server_and_date_are_there_once(server: Server) -> None:
    answer = server.get("/?field=Server:mine&field=Date:yesterday")
    assert answer.header_values("Server") == ["bicorn"]
    (date,) = answer.header_values("Date")
    assert date.endswith(" GMT") and len(date) == 29


def test_repeated_fields_keep_their_order(server: Server) -> None:
    answer = server.get("/?field=Set-Cookie:a&field=X-Own:1&field=Set-Cookie:b")
    assert answer.header_values("Set-Cookie") == ["a", "b"]


def test_early_hints_come_before_the_answer(server: Server) -> None:
    with server.connection() as (sock, reader):
        sock.sendall(KEEP.format("/?hint=Link:one&hint=Link:two").encode())
        first, second, last = (reader.read_answer() for _ in range(3))
    assert (first.status, first.header("Link"), second.header("Link")) == (103, "one", "two")
    assert (last.status, last.body, last.header("Link")) == (200, b"xxxxx", None)


@pytest.mark.parametrize("field", ["Content-Length:5", "Transfer-Encoding:chunked", "Connection:close"])
def test_an_early_hint_says_nothing_of_framing(server: Server, field: str) -> None:
    """RFC 9110, 8.6 and 15.2; RFC 9112, 6.1."""
    with server.connection() as (sock, reader):
        sock.sendall(KEEP.format(f"/?hint={field}").encode())
        hint, answer = reader.read_answer(), reader.read_answer()
    assert (hint.status, hint.headers, answer.body) == (103, (), b"xxxxx")


def test_early_hints_are_nothing_to_http_1_0(server: Server) -> None:
    head, _ = raw(server, "GET /?hint=Link:one HTTP/1.0\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ") and "Link" not in head


def test_an_early_hint_cannot_split_the_answer(server: Server) -> None:
    head, _ = raw(server, CLOSE.format("/?hint=Link:one%0d%0aX-Injected:1"))
    assert head.startswith("HTTP/1.1 500 ") and "Injected" not in head
