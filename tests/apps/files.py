"""Files through wsgi.file_wrapper: ?path=…&offset=…&length=…, or what is no plain file, by the path."""

from __future__ import annotations

import io
import os
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO


class Unseekable:
    """The least that file_wrapper may be given: read(), and a close() that is seen in the log."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ
        self._data = io.BytesIO(b"unseekable" * 2000)

    def read(self, size: int) -> bytes:
        """Read some of it."""
        return self._data.read(size)

    def close(self) -> None:
        """Say so."""
        self._environ["wsgi.errors"].write(f"closed {self._environ['QUERY_STRING']}\n")


class Seen(io.FileIO):
    """A real file whose close() is seen in the log."""

    def __init__(self, path: str, environ: dict[str, Any]) -> None:
        super().__init__(path)
        self._environ: dict[str, Any] | None = environ

    def close(self) -> None:
        """Say so, once."""
        if self._environ is not None:
            environ, self._environ = self._environ, None
            environ["wsgi.errors"].write(f"closed file {environ['QUERY_STRING']}\n")
        super().close()


def _pipe() -> BinaryIO:
    reading, writing = os.pipe()
    with open(writing, "wb") as end:
        end.write(b"piped")
    return open(reading, "rb")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Wrap what the path names."""
    query = {name: values[0] for name, values in urllib.parse.parse_qs(environ["QUERY_STRING"]).items()}
    filelike: Any
    match environ["PATH_INFO"]:
        case "/pipe":
            filelike = _pipe()
        case "/bytes":
            filelike = io.BytesIO(b"in memory")
        case "/unseekable":
            filelike = Unseekable(environ)
        case "/seen":
            filelike = Seen(query["path"], environ)
        case _:
            filelike = open(query["path"], "rb")  # noqa: SIM115  The server closes it.
    if "offset" in query:
        filelike.seek(int(query["offset"]))
    if "readahead" in query:
        filelike.read(int(query["readahead"]))
    fields = [("Content-Type", "application/octet-stream")]
    if "length" in query:
        fields.append(("Content-Length", query["length"]))
    write = start_response(query.get("status", "200") + " OK", fields)
    if "write" in query:
        write(query["write"].encode())
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](filelike, 4096)
    return wrapped
