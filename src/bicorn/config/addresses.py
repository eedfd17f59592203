"""The addresses that `bind` may name.

Owns       the reading of one address.
Never      resolves a name or opens a socket: `net` does.
Invariant  a result is (host, port), a path, or the number of a descriptor.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from bicorn.config.kind import Invalid

Address: TypeAlias = tuple[str, int] | str | int

DEFAULT_PORT: Final = 8000
PORT_MAX: Final = 65535


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Read HOST, HOST:PORT, [V6]:PORT, tcp://HOST:PORT, unix:PATH or fd://N."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:").removeprefix("//")
    if text.startswith("fd://"):
        return _descriptor(text.removeprefix("fd://"))
    host, port = _split(text.removeprefix("tcp://"), str(default_port))
    return host.lower(), _port(port)


def _descriptor(text: str) -> int:
    if not text.isdigit():
        raise Invalid(f"{text!r} is not the number of a file descriptor")
    return int(text)


def _split(text: str, default_port: str) -> tuple[str, str]:
    if text == "":
        return "0.0.0.0", default_port  # an empty bind asks for every address, and is documented so
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Invalid("an IPv6 address is written [ADDRESS] or [ADDRESS]:PORT")
        return host, rest[1:] or default_port
    host, colon, port = text.partition(":")
    if ":" in port:
        raise Invalid("an IPv6 address needs brackets: [ADDRESS]:PORT")
    return host, port if colon else default_port


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > PORT_MAX:
        raise Invalid(f"{text!r} is not a port (0 to {PORT_MAX})")
    return int(text)
