"""Requests that nobody should send, drawn from the corpus by a seeded generator.

Owns       the ways in which a request is spoilt.
Invariant  the same seed gives the same bytes, so that whatever breaks a server can be sent again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from harness.corpus import corpus_files

#: The longest request made: what it costs is sending it, and the limits are met long before.
BYTES_MAX = 16_384

#: What parsers of HTTP stumble over.
MORSELS = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b",", b";", b"\xff", b"\x80", b"%", b"\r\n\r\n", b"\r\n ",
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b"-1", b"+5", b"18446744073709551616", b"9" * 40,
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"Host:\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.1",
    b"Connection: keep-alive\r\n", b"HTTP/1.0", b"HTTP/9.9", b"GET ", b"HEAD ", b"CONNECT ", b"*", b"http://", b"[::1]",
    b"X_Y: 1\r\n", b"SCRIPT_NAME: /a\r\n", b"Cookie: a=b\r\n", b"X-" + b"n" * 300 + b": 1\r\n", b"X: " + b"v" * 9000,
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
]  # fmt: skip


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(MORSELS)


def _delete(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 8)]


def _repeat(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 60)]
    data[start:start] = piece * rng.randint(1, 6)


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(1, len(data) + 1) :]


def _swap_lines(rng: random.Random, data: bytearray) -> None:
    lines = bytes(data).split(b"\r\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    data[:] = b"\r\n".join(lines)


SPOILING: list[Callable[[random.Random, bytearray], None]] = [
    _flip, _insert, _delete, _repeat, _truncate, _swap_lines,
]  # fmt: skip


def requests(seed: int) -> Iterator[bytes]:
    """Endless requests: mostly spoilt ones of the corpus, some as they are, some plain noise."""
    rng = random.Random(seed)
    corpus = [file.data for file in corpus_files() if file.data]
    while True:
        kind = rng.random()
        if kind < 0.05:
            yield rng.randbytes(rng.randint(1, 300))
        elif kind < 0.15:
            yield rng.choice(corpus)
        elif kind < 0.25:
            one, other = rng.choice(corpus), rng.choice(corpus)
            yield one[: rng.randrange(len(one)) + 1] + other[rng.randrange(len(other)) :]
        else:
            yield _spoilt(rng, rng.choice(corpus))


def _spoilt(rng: random.Random, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if spoilt:
            rng.choice(SPOILING)(rng, spoilt)
    return bytes(spoilt[:BYTES_MAX]) or b"\x00"


def payloads(seed: int, count: int) -> Iterator[bytes]:
    """What is sent on one connection each: `count` requests, before many of them some that keep the connection."""
    rng = random.Random(~seed)
    source = requests(seed)
    keeping = [file.data for file in corpus_files() if not (file.closes or file.pending or file.settings)]
    for _ in range(count):
        before = [rng.choice(keeping) for _ in range(rng.choice((0, 0, 1, 3)))]
        yield b"".join([*before, next(source)])
