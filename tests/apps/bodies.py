"""Bodies in every shape; the path names the shape, the query is written to the error log by close()."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Any]

TEXT = [("Content-Type", "text/plain")]


class Closing:
    """An iterable with a close() that can be seen in the log."""

    def __init__(self, environ: Environ, blocks: Iterable[bytes]) -> None:
        self._environ = environ
        self._blocks = iter(blocks)

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def close(self) -> None:
        """Say that it was called; /close_fails fails."""
        self._environ["wsgi.errors"].write(f"closed {self._environ['QUERY_STRING']}\n")
        if self._environ["PATH_INFO"] == "/close_fails":
            raise ValueError("the door is stuck")


def _raising() -> Iterator[bytes]:
    yield b"begun"
    raise LookupError("in the middle")


def _raising_first() -> Iterator[bytes]:
    raise LookupError("before the first block")
    yield b"never"


def _endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 65536


def _pausing() -> Iterator[bytes]:
    while True:
        yield b"a part"
        time.sleep(0.4)


BLOCKS: dict[str, Callable[[], Any]] = {
    "/one": lambda: [b"one"],
    "/list": lambda: [b"a", b"", b"bc", b"d" * 10000],
    "/tuple": lambda: (b"a", b"bc"),
    "/empty_list": list,
    "/empty_block": lambda: [b""],
    "/generator": lambda: (block for block in (b"a", b"", b"bc", b"d" * 10000)),
    "/empty_generator": lambda: iter(()),
    "/empty_blocks": lambda: iter((b"", b"", b"")),
    "/raising": _raising,
    "/raising_first": _raising_first,
    "/endless": _endless,
    "/pausing": _pausing,
    "/close_fails": lambda: [b"whole"],
    "/str": lambda: ["text"],
    "/strs": lambda: [b"a", "text"],
    "/str_later": lambda: iter((b"a", "text")),
    "/bytearray": lambda: [bytearray(b"x")],
    "/none": lambda: None,
    "/int": lambda: 5,
}


def app(environ: Environ, start_response: Start) -> Any:
    """Answer with the body that the path names, wrapped in Closing unless the query says bare."""
    path = environ["PATH_INFO"]
    if path.startswith("/written"):
        return written(environ, start_response)
    start_response("200 OK", TEXT)
    blocks = BLOCKS[path]()
    return blocks if environ["QUERY_STRING"] == "bare" else Closing(environ, blocks)


def written(environ: Environ, start_response: Start) -> Iterable[bytes]:
    """Use write(), with what the path names after it."""
    write = start_response("200 OK", TEXT)
    write(b"w1 ")
    write(b"")
    write(b"w2 ")
    rest: dict[str, Iterable[bytes]] = {
        "/written": [],
        "/written_list": [b"l1 ", b"l2"],
        "/written_one": [b"l1"],
        "/written_generator": iter((b"g1 ", b"g2")),
    }
    if environ["PATH_INFO"] == "/written_raising":
        raise LookupError("after write()")
    if environ["PATH_INFO"] == "/written_str":
        write("text")
    if environ["PATH_INFO"] == "/written_much":
        for _ in range(160):
            write(b"m" * 65536)
        return []
    return rest[environ["PATH_INFO"]]
