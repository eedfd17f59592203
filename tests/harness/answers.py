"""Reads HTTP/1.1 answers from a socket, strictly, one after another.

Owns       the client half of framing as the tests need it: head, then length, chunks or close.
Never      repairs an answer: what it cannot frame is an AssertionError with the bytes in it.
Invariant  bytes after an answer stay in `pending`, so pipelined answers are read one by one.
"""

from __future__ import annotations

import dataclasses
import socket

RECEIVE_BYTES = 65536


@dataclasses.dataclass(frozen=True)
class Answer:
    """One complete response as it stood on the wire."""

    version: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    trailers: tuple[tuple[str, str], ...] = ()

    def header(self, name: str) -> str | None:
        """Give the value of the first field of that name, or None."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def header_values(self, name: str) -> list[str]:
        """Give the values of every field of that name, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8")


class AnswerReader:
    """Takes answers off one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        # A bytearray: what is taken from its front is not copied, however much comes after.
        self.pending = bytearray()
        self.closed = False

    def read_answer(self, method: str = "GET") -> Answer:
        """Read one answer, interim (1xx) ones included, to the request made with `method`."""
        version, status, reason, headers = self._read_head()
        fields = {name.lower(): value for name, value in headers}
        trailers: tuple[tuple[str, str], ...] = ()
        if method == "HEAD" or status < 200 or status in (204, 304):
            body = b""
        elif "chunked" in fields.get("transfer-encoding", "").lower():
            body, trailers = self._read_chunks()
        elif "content-length" in fields:
            body = self._take(int(fields["content-length"]))
        else:
            body = self.read_to_close()
        return Answer(version, status, reason, headers, body, trailers)

    def read_to_close(self) -> bytes:
        """Read everything until the server closes."""
        while self._fill():
            pass
        return self._cut(len(self.pending))

    def _read_head(self) -> tuple[str, int, str, tuple[tuple[str, str], ...]]:
        lines = self._take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, reason = (*lines[0].split(" ", 2), "")[:3]
        assert version.startswith("HTTP/"), f"not a status line: {lines[0]!r}"
        return version, int(status), reason, _fields(lines[1:])

    def _read_chunks(self) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        body = bytearray()
        while size := int(self._take_until(b"\r\n").split(b";")[0], 16):
            body += self._take(size)
            assert self._take(2) == b"\r\n", "a chunk does not end in CRLF"
        trailers = []
        while line := self._take_until(b"\r\n"):
            trailers.append(line.decode("latin-1"))
        return bytes(body), _fields(trailers)

    def _take_until(self, mark: bytes) -> bytes:
        seen = 0
        while (end := self.pending.find(mark, max(0, seen - len(mark)))) < 0:
            seen = len(self.pending)
            assert self._fill(), f"the server closed before {mark!r}: {bytes(self.pending)!r}"
        taken = self._cut(end)
        self._cut(len(mark))
        return taken

    def _take(self, count: int) -> bytes:
        while len(self.pending) < count:
            assert self._fill(), (
                f"the server closed {count - len(self.pending)} bytes early: {bytes(self.pending[-200:])!r}"
            )
        return self._cut(count)

    def _cut(self, count: int) -> bytes:
        with memoryview(self.pending) as view:
            taken = bytes(view[:count])
        del self.pending[:count]
        return taken

    def _fill(self) -> bool:
        received = self.sock.recv(RECEIVE_BYTES)
        self.pending += received
        self.closed = self.closed or not received
        return bool(received)


def _fields(lines: list[str]) -> tuple[tuple[str, str], ...]:
    pairs = (line.partition(":") for line in lines)
    return tuple((name, value.strip(" \t")) for name, _, value in pairs)
