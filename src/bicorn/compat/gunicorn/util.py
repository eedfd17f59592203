"""`gunicorn.util`: the functions of it that worker classes and embedding programs of third parties call.

Their names and signatures are Gunicorn's. What Bicorn does elsewhere is called there; the rest is small enough to
stand here.
"""

from __future__ import annotations

import contextlib
import email.utils
import html
import importlib
import importlib.metadata
import inspect
import io
import os
import random
import sys
import urllib.parse
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from setproctitle import setproctitle

from bicorn.app.importer import load_app
from bicorn.arbiter import daemon
from bicorn.config.kind import Invalid
from bicorn.config.values import current_directory
from bicorn.net import address
from bicorn.workers.privileges import set_owner
from bicorn.workers.registry import ENTRY_POINT_GROUP, WorkerClassNotFound, find_worker_class

if TYPE_CHECKING:
    import socket

#: Fields of a response that belong to the connection or to the server, and that an application may not set.
hop_headers: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "server",
        "date",
    )
)

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

# -- finding code ----------------------------------------------------------------------------------


def import_app(module: str) -> Callable[..., object]:
    """Import the application of MODULE:NAME."""
    return load_app(module)


def load_class(uri: str | type, default: str = "sync", section: str = ENTRY_POINT_GROUP) -> object:
    """Give the class that a name, a dotted path or egg:DISTRIBUTION#NAME leads to; RuntimeError if there is none."""
    if isinstance(uri, type):
        return uri
    try:
        if section == ENTRY_POINT_GROUP:
            return find_worker_class(uri)
        return _other_class(uri, default, section)
    except (WorkerClassNotFound, ImportError, AttributeError, LookupError, ValueError) as error:
        raise RuntimeError(f"class uri {uri!r} invalid or not found: {error}") from error


def _other_class(uri: str, default: str, section: str) -> object:
    if uri.startswith("egg:"):
        distribution, _, name = uri.removeprefix("egg:").partition("#")
        return load_entry_point(distribution, section, name or default)
    module, _, name = uri.rpartition(".")
    found: object = getattr(importlib.import_module(module), name)
    return found


def load_entry_point(distribution: str, group: str, name: str) -> object:
    """Load an entry point of a distribution."""
    for entry in importlib.metadata.distribution(distribution).entry_points:
        if entry.group == group and entry.name == name:
            found: object = entry.load()
            return found
    raise ImportError(f"the distribution {distribution!r} has no entry point {name!r} in the group {group!r}")


def get_arity(f: Callable[..., object]) -> int:
    """Count the parameters that can be given by position."""
    return sum(parameter.kind in _POSITIONAL for parameter in inspect.signature(f).parameters.values())


def make_fail_app(msg: str | bytes) -> Callable[..., list[bytes]]:
    """Make an application that answers every request with 500 and this text."""
    body = to_bytestring(msg)

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        start_response(
            "500 Internal Server Error", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        )
        return [body]

    return app


# -- the process -----------------------------------------------------------------------------------


def getcwd() -> str:
    """Give the working directory as the shell calls it."""
    return current_directory()


def set_owner_process(uid: int, gid: int, initgroups: bool = False) -> None:
    """Become a user and a group; 0 leaves as it is."""
    set_owner(uid or os.getuid(), gid or os.getgid(), initgroups=initgroups)


def seed() -> None:
    """Give this process random numbers of its own."""
    random.seed()


def daemonize(enable_stdio_inheritance: bool = False) -> None:
    """Leave the terminal; the calling process exits."""
    daemon.daemonize(keep_redirected_streams=enable_stdio_inheritance)


def _setproctitle(title: str) -> None:
    setproctitle(f"bicorn: {title}")


def warn(msg: str) -> None:
    """Write a warning to stderr, where it is seen."""
    lines = "".join(f"!!! {line}\n" for line in f"WARNING: {msg}".splitlines())
    sys.stderr.write(f"!!!\n{lines}!!!\n\n")
    sys.stderr.flush()


def reraise(tp: type[BaseException], value: BaseException | None, tb: TracebackType | None = None) -> NoReturn:
    """Raise what sys.exc_info() gave."""
    raise (tp() if value is None else value).with_traceback(tb)


# -- files and descriptors -------------------------------------------------------------------------


def chown(path: str, uid: int, gid: int) -> None:
    """Give a file to a user and a group."""
    os.chown(path, uid, gid)


def unlink(filename: str) -> None:
    """Remove a file if it is there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(filename)


def check_is_writable(path: str) -> None:
    """Raise RuntimeError if a file cannot be written; one that is not there is made."""
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise RuntimeError(f"Error: {path!r} isn't writable [{error!r}]") from error


def close_on_exec(fd: int) -> None:
    """Keep a descriptor from programs that this process starts."""
    os.set_inheritable(fd, False)


def set_non_blocking(fd: int) -> None:
    """Let reads and writes of a descriptor return at once."""
    os.set_blocking(fd, False)


def has_fileno(obj: object) -> bool:
    """Tell whether an object has a descriptor that can be asked for."""
    try:
        obj.fileno()  # type: ignore[attr-defined]  # finding that out is what this is for
    except (AttributeError, OSError, io.UnsupportedOperation):
        return False
    return True


# -- addresses and text ----------------------------------------------------------------------------


def is_ipv6(addr: str) -> bool:
    """Tell whether a host is a literal IPv6 address."""
    return address.is_ipv6(addr)


def parse_address(netloc: str, default_port: str | int = 8000) -> address.Address:
    """Read an address as `bind` takes it; RuntimeError if it is none."""
    try:
        return address.parse_address(netloc, int(default_port))
    except Invalid as reason:
        raise RuntimeError(f"{netloc!r} is not a valid address: {reason}") from None


def split_request_uri(uri: str) -> urllib.parse.SplitResult:
    """Split a request target; one that begins with two slashes is a path and not a host."""
    if not uri.startswith("//"):
        return urllib.parse.urlsplit(uri)
    parts = urllib.parse.urlsplit(f"/.{uri}")
    return parts._replace(path=parts.path.removeprefix("/."))


def http_date(timestamp: float | None = None) -> str:
    """Write a time, now if none is given, as HTTP does (RFC 9110, section 5.6.7)."""
    return email.utils.formatdate(timestamp, usegmt=True)


def to_bytestring(value: str | bytes, encoding: str = "utf8") -> bytes:
    """Give text as bytes; bytes stay as they are."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value.encode(encoding)


def bytes_to_str(b: str | bytes) -> str:
    """Give bytes as text, one character a byte; text stays as it is."""
    return b if isinstance(b, str) else b.decode("latin-1")


def is_hoppish(header: str) -> bool:
    """Tell whether an application may not set this field."""
    return header.lower().strip() in hop_headers


# -- writing to a client ---------------------------------------------------------------------------


def close(sock: socket.socket) -> None:
    """Close a socket, whatever state it is in."""
    with contextlib.suppress(OSError):
        sock.close()


def write(sock: socket.socket, data: bytes, chunked: bool = False) -> None:
    """Send all of some bytes."""
    if chunked:
        write_chunk(sock, data)
    else:
        sock.sendall(data)


def write_chunk(sock: socket.socket, data: str | bytes) -> None:
    """Send some bytes as one chunk (RFC 9112, section 7.1)."""
    content = to_bytestring(data)
    sock.sendall(b"%X\r\n%b\r\n" % (len(content), content))


def write_nonblock(sock: socket.socket, data: bytes, chunked: bool = False) -> None:
    """Send as much as the socket takes at once, and raise if that is not all."""
    before = sock.gettimeout()
    sock.setblocking(False)
    try:
        write(sock, data, chunked)
    finally:
        sock.settimeout(before)


def write_error(sock: socket.socket, status_int: int, reason: str, mesg: str) -> None:
    """Send an error page after which the connection is closed."""
    title = html.escape(reason)
    body = to_bytestring(
        f"<html><head><title>{title}</title></head><body><h1>{title}</h1>{html.escape(mesg)}</body></html>"
    )
    fields: Iterable[str] = (
        f"HTTP/1.1 {status_int} {reason}",
        "Connection: close",
        "Content-Type: text/html; charset=utf-8",
        f"Content-Length: {len(body)}",
    )
    write_nonblock(sock, "\r\n".join((*fields, "", "")).encode("latin-1") + body)
