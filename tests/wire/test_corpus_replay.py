"""Each file of the corpus over a real socket, through each worker class, whole and in pieces."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest

from harness.answers import Answer, AnswerReader
from harness.corpus import CorpusFile, Expected, corpus_files
from harness.server import Server

FILES = corpus_files()

#: Sent byte by byte only up to this size: each byte is a system call on both sides.
BYTEWISE_BYTES_MAX = 300

#: A refusal may meet bytes that are still being sent; what matters is what was answered.
BROKEN = (BrokenPipeError, ConnectionResetError)


def whole(data: bytes) -> Iterator[list[bytes]]:
    yield [data]


def halves(data: bytes) -> Iterator[list[bytes]]:
    """Cut in two: in the middle, near both ends, and inside the empty line before the body."""
    boundary = data.find(b"\r\n\r\n")
    cuts = {1, 2, len(data) // 3, len(data) // 2, len(data) - 1, boundary + 1, boundary + 3, boundary + 4}
    for cut in sorted(cut for cut in cuts if 0 < cut < len(data)):
        yield [data[:cut], data[cut:]]


def bytewise(data: bytes) -> Iterator[list[bytes]]:
    if len(data) <= BYTEWISE_BYTES_MAX:
        yield [data[at : at + 1] for at in range(len(data))]


WAYS = {"whole": whole, "halves": halves, "bytewise": bytewise}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_request_is_read_the_same_however_it_is_cut(
    server_for: Callable[[str], Server], file: CorpusFile, way: str
) -> None:
    server = server_for(file.config)
    if "asgi" in server.arguments and asks_for_websocket(file):
        pytest.skip("the asgi worker takes it for the handshake that it is: tests/asgi/test_websocket.py")
    for pieces in WAYS[way](file.data):
        replay(server, file, pieces)


def asks_for_websocket(file: CorpusFile) -> bool:
    return b"upgrade: websocket" in file.data.lower() and any(expected.upgrade for expected in file.requests)


def replay(server: Server, file: CorpusFile, pieces: list[bytes]) -> None:
    with server.connection() as (sock, reader):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent_whole = send(sock, pieces)
        for expected in file.requests:
            check_answer(next_final(reader, expected), expected)
        if file.is_rejected:
            check_refusal(next_final(reader, None, "HEAD" if file.to_head else "GET"), file)
        if not file.closes:
            assert sent_whole, "the server closed before the last byte"
            assert still_open(sock, reader), "closed although the connection may go on"
            sock.shutdown(socket.SHUT_WR)
        assert rest(reader) == b"", "more than was asked for"


def send(sock: socket.socket, pieces: list[bytes]) -> bool:
    try:
        for piece in pieces:
            sock.sendall(piece)
    except BROKEN:
        return False
    return True


def next_final(reader: AnswerReader, expected: Expected | None, method: str = "GET") -> Answer:
    """The next answer that is not interim; a 100 comes only to those who asked."""
    if expected is not None and expected.method in ("HEAD", "CONNECT"):
        method = "HEAD"
    answer = reader.read_answer(method)
    while answer.status == 100:
        assert expected is None or expected.expects_continue
        answer = reader.read_answer(method)
    return answer


def check_answer(answer: Answer, expected: Expected) -> None:
    assert answer.status == 200, answer
    seen = json.loads(answer.header("X-Seen") or answer.body)
    assert seen.pop("body") == expected.body
    assert seen == (expected.environ if "RAW_URI" in seen else in_asgi(expected))
    assert answer.header("Connection") == ("keep-alive" if expected.keep_alive else "close")


def in_asgi(expected: Expected) -> dict[str, str]:
    """What ASGI tells: nothing of the target as it was sent, and the path that an absolute one without a path means."""
    environ = {key: value for key, value in expected.environ.items() if key != "RAW_URI"}
    if not environ["PATH_INFO"] and expected.method != "CONNECT":
        environ["PATH_INFO"] = "*" if expected.method == "OPTIONS" else "/"
    return environ


def check_refusal(answer: Answer, file: CorpusFile) -> None:
    assert answer.status == file.status, answer
    assert answer.header("Connection") == "close"
    assert answer.header("Server") == "bicorn"
    assert answer.header("Date")


def still_open(sock: socket.socket, reader: AnswerReader) -> bool:
    """Whether nothing has come, not even an end."""
    sock.setblocking(False)
    try:
        return not reader.pending and sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(20)


def rest(reader: AnswerReader) -> bytes:
    """Everything up to the end, which is a reset where bytes came after an answer that closes."""
    try:
        return reader.read_to_close()
    except ConnectionResetError:
        return bytes(reader.pending)
