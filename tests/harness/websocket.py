"""A WebSocket client that may do what no client should: frames as bytes, on a plain socket.

Owns       the client's side of RFC 6455 as far as a test needs it: the handshake, writing and reading frames.
Never      checks what it sends. What the server sends is checked: it masks nothing and fragments nothing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.answers import Answer, AnswerReader
from harness.server import DEADLINE_S

if TYPE_CHECKING:
    from typing_extensions import Self

KEY = base64.b64encode(b"0123456789abcdef").decode()
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ACCEPT = base64.b64encode(hashlib.sha1((KEY + GUID).encode(), usedforsecurity=False).digest()).decode()

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1 = 0x80, 0x40


def frame(first: int, payload: bytes = b"", *, mask: bytes | None = b"\x37\xfa\x21\x3d") -> bytes:
    """A frame as a client sends it; `first` is its first byte, valid or not. Without a mask it is a server's."""
    flag = 0x80 if mask is not None else 0
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", first, flag | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, flag | 126, length)
    else:
        head = struct.pack("!BBQ", first, flag | 127, length)
    if mask is None:
        return head + payload
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A Close as a client sends it."""
    return frame(FIN | CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


@dataclass(frozen=True)
class Frame:
    """A frame that the server sent."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        """What it is."""
        return self.first & 0x0F

    @property
    def close_code(self) -> int | None:
        """The code of a Close."""
        return struct.unpack("!H", self.payload[:2])[0] if self.opcode == CLOSE and self.payload else None


class WebSocketClient:
    """One connection; use it as a context manager."""

    def __init__(
        self,
        address: tuple[str, int],
        path: str = "/",
        *,
        fields: Mapping[str, str | None] | None = None,
        timeout: float = DEADLINE_S,
        receive_buffer: int | None = None,
        eager: bytes = b"",
    ) -> None:
        """Connect and shake hands. A field of None is left out; `eager` is sent with the request."""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        usual: dict[str, str | None] = {
            "Host": "test.example",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        }
        lines = [f"{name}: {value}\r\n" for name, value in {**usual, **(fields or {})}.items() if value is not None]
        self.sock.sendall(f"GET {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1") + eager)
        reader = AnswerReader(self.sock)
        self.answer: Answer = reader.read_answer()
        self._buffer = bytes(reader.pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, *frames: bytes, pieces: int = 0) -> None:
        """Send frames; with `pieces`, in that many bytes at a time. The server may have closed before their end."""
        data = b"".join(frames)
        step = pieces or len(data) or 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(data), step):
                self.sock.sendall(data[start : start + step])

    def receive(self) -> Frame | None:
        """The server's next frame; None when it has closed the connection."""
        head = self._take(2)
        if head is None:
            return None
        assert not head[1] & 0x80, "a server does not mask"
        assert head[0] & FIN, "a server of ours does not fragment"
        length = head[1] & 0x7F
        if length >= 126:
            more = self._take(2 if length == 126 else 8)
            assert more is not None, "closed inside a length"
            length = int.from_bytes(more, "big")
        payload = self._take(length)
        assert payload is not None, "closed inside a frame"
        return Frame(head[0], payload)

    def receive_all(self) -> list[Frame]:
        """Everything up to the end of the connection."""
        frames = []
        while (received := self.receive()) is not None:
            frames.append(received)
        return frames

    def _take(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                assert not self._buffer, f"closed after {self._buffer!r}"
                return None
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken
