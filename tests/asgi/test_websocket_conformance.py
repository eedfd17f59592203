"""What RFC 6455 and RFC 7692 say about frames, case by case, over real connections.

The categories are those that WebSocket conformance suites have: framing, pings, reserved bits, opcodes, fragments,
UTF-8, closing, limits, compression. Each case is sent whole and in small pieces, to an application that echoes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import pytest

from harness.server import Serve, Server
from harness.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Frame,
    WebSocketClient,
    close,
    frame,
)

MESSAGE_BYTES_MAX = 1 << 20
LONGEST = b"x" * MESSAGE_BYTES_MAX
SNOWMAN = "\N{SNOWMAN}".encode()


@dataclass(frozen=True)
class Case:
    """What a client sends and gets back, and what it sends then to get a Close with a code."""

    name: str
    sent: bytes = b""
    got: tuple[Frame, ...] = ()
    last: bytes = b""
    code: int | None = 1000
    deflate: bool = False
    pieces: tuple[int, ...] = (0, 1, 7)


def fine(name: str, *frames: bytes, got: tuple[Frame, ...], deflate: bool = False) -> Case:
    """A case that ends with a Close of the client's."""
    sent = b"".join(frames)
    pieces = (0, 1, 7) if len(sent) < 4096 else (0, 997)
    return Case(name, sent, got, close(1000), deflate=deflate, pieces=pieces)


def ended(name: str, code: int | None, *frames: bytes, deflate: bool = False) -> Case:
    """A case that the client's frames end."""
    return Case(name, last=b"".join(frames), code=code, deflate=deflate)


def text(payload: bytes) -> Frame:
    """The echo of a text."""
    return Frame(FIN | TEXT, payload)


def binary(payload: bytes) -> Frame:
    """The echo of bytes."""
    return Frame(FIN | BINARY, payload)


def pong(payload: bytes) -> Frame:
    """The answer to a Ping."""
    return Frame(FIN | PONG, payload)


FRAMING = [
    *(fine(f"text of {n}", frame(FIN | TEXT, b"*" * n), got=(text(b"*" * n),)) for n in (0, 1, 125, 126, 127, 128)),
    *(fine(f"text of {n}", frame(FIN | TEXT, b"*" * n), got=(text(b"*" * n),)) for n in (65535, 65536, 1 << 20)),
    *(
        fine(f"bytes of {n}", frame(FIN | BINARY, b"\xfe" * n), got=(binary(b"\xfe" * n),))
        for n in (0, 125, 126, 65536)
    ),
    fine("a mask of zeros", frame(FIN | TEXT, b"plain", mask=bytes(4)), got=(text(b"plain"),)),
    ended("no mask", 1002, frame(FIN | TEXT, b"plain", mask=None)),
    ended("16 bits of length for 125", 1002, b"\x81\xfe\x00\x7d" + bytes(4)),
    ended("64 bits of length for 65535", 1002, b"\x81\xff" + (65535).to_bytes(8, "big") + bytes(4)),
    ended("a length with its highest bit", 1002, b"\x82\xff\x80" + bytes(11)),
]

PINGS = [
    fine("without payload", frame(FIN | PING), got=(pong(b""),)),
    fine("with payload", frame(FIN | PING, b"hello"), got=(pong(b"hello"),)),
    fine("with bytes", frame(FIN | PING, b"\x00\xff\xfe"), got=(pong(b"\x00\xff\xfe"),)),
    fine("of 125 bytes", frame(FIN | PING, b"\xfe" * 125), got=(pong(b"\xfe" * 125),)),
    ended("of 126 bytes", 1002, frame(FIN | PING, b"\xfe" * 126)),
    fine("a Pong that nobody asked for", frame(FIN | PONG, b"hi"), got=()),
    fine("a Pong, then a Ping", frame(FIN | PONG, b"a"), frame(FIN | PING, b"b"), got=(pong(b"b"),)),
    fine("ten", *(frame(FIN | PING, b"%d" % n) for n in range(10)), got=tuple(pong(b"%d" % n) for n in range(10))),
]

RESERVED = [
    *(
        ended(f"bits {bits:#x} of a text", 1002, frame(FIN | TEXT | bits, b"x"))
        for bits in (0x10, 0x20, 0x30, 0x40, 0x70)
    ),
    *(ended(f"bits {bits:#x} of a Ping", 1002, frame(FIN | PING | bits)) for bits in (0x10, 0x40)),
    Case("after a good message", frame(FIN | TEXT, b"ok"), (text(b"ok"),), frame(FIN | TEXT | 0x20, b"x"), 1002),
    *(ended(f"opcode {code}", 1002, frame(FIN | code, b"x")) for code in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)),
]

FRAGMENTS = [
    ended("a Ping in two", 1002, frame(PING, b"a"), frame(FIN | CONTINUATION, b"b")),
    ended("a Close in two", 1002, frame(CLOSE, b"\x03\xe8"), frame(FIN | CONTINUATION)),
    fine("a text in two", frame(TEXT, b"a"), frame(FIN | CONTINUATION, b"b"), got=(text(b"ab"),)),
    fine("with empty ones", frame(TEXT), frame(CONTINUATION), frame(FIN | CONTINUATION), got=(text(b""),)),
    fine(
        "with a Ping between",
        frame(TEXT, b"a"), frame(FIN | PING, b"p"), frame(FIN | CONTINUATION, b"b"),
        got=(pong(b"p"), text(b"ab")),
    ),
    ended("that continue nothing", 1002, frame(FIN | CONTINUATION, b"x")),
    Case("that continue a whole message", frame(FIN | TEXT, b"a"), (text(b"a"),), frame(CONTINUATION, b"b"), 1002),
    ended("a message inside another", 1002, frame(TEXT, b"a"), frame(FIN | TEXT, b"b")),
    fine(
        "a thousand of one byte",
        frame(BINARY, b"x"), *(frame(CONTINUATION, b"x") for _ in range(998)), frame(FIN | CONTINUATION, b"x"),
        got=(binary(b"x" * 1000),),
    ),
]  # fmt: skip

INVALID_UTF8 = {
    "a continuation byte alone": b"\x80",
    "a byte that never stands in it": b"ok \xfe",
    "a character cut off by the end": b"\xe2\x98",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xe0\x80\x80",
    "half of a surrogate pair": "\u03ba\u1f79\u03c3\u03bc\u03b5".encode() + b"\xed\xa0\x80edited",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
}

UTF8 = [
    *(ended(name, 1007, frame(FIN | TEXT, payload)) for name, payload in INVALID_UTF8.items()),
    *(ended(f"{name}, in fragments", 1007, frame(TEXT, payload[:1]), frame(FIN | CONTINUATION, payload[1:]))
      for name, payload in INVALID_UTF8.items()),
    ended("found before the message ends", 1007, frame(TEXT, b"\xff")),
    fine(
        "cut inside a character",
        frame(TEXT, SNOWMAN[:1]), frame(FIN | CONTINUATION, SNOWMAN[1:]), got=(text(SNOWMAN),),
    ),
    *(fine(f"U+{ord(character):X}", frame(FIN | TEXT, character.encode()), got=(text(character.encode()),))
      for character in "\x00\x7f\x80\u07ff\u0800\ufffd\uffff\U00010000\U0010ffff"),
    fine("bytes need not be text", frame(FIN | BINARY, b"\xff\xfe"), got=(binary(b"\xff\xfe"),)),
]  # fmt: skip

VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)

CLOSES = [
    ended("without a code", None, close()),
    *(ended(f"with {code}", code, close(code)) for code in VALID_CODES),
    *(ended(f"with {code}", 1002, close(code)) for code in INVALID_CODES),
    ended("with half a code", 1002, frame(FIN | CLOSE, b"\x03")),
    ended("with a reason", 1000, close(1000, b"good bye")),
    ended("with a reason of 123 bytes", 1000, close(1000, b"*" * 123)),
    ended("with a reason of 124 bytes", 1002, close(1000, b"*" * 124)),
    ended("with a reason that is not UTF-8", 1007, close(1000, b"\xff")),
    ended("then a message", 1000, close(1000), frame(FIN | TEXT, b"late")),
    ended("then a Ping and nonsense", 1000, close(1000), frame(FIN | PING), b"\xff" * 20),
    ended("inside a message", 1001, frame(TEXT, b"begun"), close(1001)),
]

LIMITS = [
    fine("as long as it may be", frame(FIN | BINARY, LONGEST), got=(binary(LONGEST),)),
    ended("announced too long", 1009, b"\x82\xff" + (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big")),
    ended("announced absurdly long", 1009, b"\x82\xff\x7f" + b"\xff" * 7),
    Case(
        "too long by its last fragment",
        last=frame(BINARY, LONGEST) + frame(FIN | CONTINUATION, b"y"), code=1009, pieces=(0, 65536),
    ),
]  # fmt: skip


def deflated(payload: bytes) -> bytes:
    """A message as permessage-deflate has it (RFC 7692, 7.2.1)."""
    stream = zlib.compressobj(wbits=-15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


HELLO = deflated(b"Hello")
DEFLATE = [
    fine("a text", frame(FIN | RSV1 | TEXT, HELLO), got=(text(b"Hello"),), deflate=True),
    fine("one that is not compressed", frame(FIN | TEXT, b"Hello"), got=(text(b"Hello"),), deflate=True),
    fine("an empty one", frame(FIN | RSV1 | BINARY, b"\x00"), got=(binary(b""),), deflate=True),
    fine(
        "in fragments",
        frame(RSV1 | TEXT, HELLO[:3]), frame(FIN | PING), frame(FIN | CONTINUATION, HELLO[3:]),
        got=(pong(b""), text(b"Hello")), deflate=True,
    ),
    fine(
        "whose last block says so",
        frame(FIN | RSV1 | TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), got=(text(b"Hello"),), deflate=True,
    ),
    ended("the bit on a continuation", 1002, frame(RSV1 | TEXT, HELLO[:3]), frame(FIN | RSV1, HELLO[3:]), deflate=True),
    ended("the bit on a Ping", 1002, frame(FIN | RSV1 | PING), deflate=True),
    ended("the bit without agreement", 1002, frame(FIN | RSV1 | TEXT, HELLO)),
    ended("nonsense", 1007, frame(FIN | RSV1 | TEXT, b"\xff\xff\xff"), deflate=True),
    ended("that is not UTF-8", 1007, frame(FIN | RSV1 | TEXT, deflated(b"\xff\xfe")), deflate=True),
    ended("a bomb", 1009, frame(FIN | RSV1 | BINARY, deflated(bytes(MESSAGE_BYTES_MAX + 1))), deflate=True),
]  # fmt: skip

CASES = {
    f"{category}: {case.name}": case
    for category, cases in {
        "framing": FRAMING,
        "ping": PINGS,
        "reserved": RESERVED,
        "fragments": FRAGMENTS,
        "utf-8": UTF8,
        "close": CLOSES,
        "limit": LIMITS,
        "deflate": DEFLATE,
    }.items()
    for case in cases
}


@pytest.fixture(scope="module")
def server(serve_module: Serve) -> Server:
    return serve_module("websocket_echo:app", "-k", "asgi", "--websocket-max-message-size", str(MESSAGE_BYTES_MAX))


@pytest.mark.parametrize("name", CASES)
def test_frames_come_to_what_the_rfc_says(server: Server, name: str) -> None:
    case = CASES[name]
    fields = {"Sec-WebSocket-Extensions": "permessage-deflate"} if case.deflate else {}
    for pieces in case.pieces:
        with WebSocketClient(("127.0.0.1", server.port), "/echo", fields=fields) as client:
            client.send(case.sent, pieces=pieces)
            got = tuple(client.receive() for _ in case.got)
            client.send(case.last, pieces=pieces)
            ends = client.receive_all()
        assert got == case.got, f"in pieces of {pieces or 'all'}"
        assert [(end.opcode, end.close_code) for end in ends] == [(CLOSE, case.code)], f"in pieces of {pieces or 'all'}"
