"""The values of an access log line, and why no client can forge one.

Owns       what each atom is, and how a value is escaped.
Never      formats the line: `format % SafeAtoms` does, in the logging module or natively.
Invariant  a string that comes out of SafeAtoms is printable ASCII, and every quote and backslash in it is escaped: it
           can end neither the line nor the field that it stands in.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from bicorn.errors import ConfigError

# Apache's and nginx's logs escape the same way. Bytes above ASCII are escaped too: WSGI hands them over as one
# character a byte, so written out they would be mojibake, and C1 controls among them move a terminal's cursor.
_UNSAFE: Final = re.compile(r"[^ !#-\[\]-~]")


def escape(value: str) -> str:
    """`value` with quotes and backslashes behind a backslash, and everything unprintable as \\xhh."""
    # Nearly every value is safe, and these four scans cost half of what the expression does.
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return _UNSAFE.sub(_escape_one, value)


def _escape_one(match: re.Match[str]) -> str:
    char = match[0]
    if char in '"\\':
        return f"\\{char}"
    point = ord(char)
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


class SafeAtoms(dict[str, Any]):  # Any: an atom is a string or a number
    """Atoms as a format sees them: strings escaped, what is not there is `-`, names in braces in any case."""

    def __init__(self, atoms: Mapping[str, Any]) -> None:
        super().__init__({name: escape(value) if isinstance(value, str) else value for name, value in atoms.items()})

    def __getitem__(self, name: str) -> Any:
        if name.startswith("{"):
            name = name.lower()
        value = self.get(name, "-")
        if isinstance(value, (str, int, float)):
            return value
        return escape(str(value))  # An object that a framework put into the environ; made text only if it is asked for.


def gather_atoms(
    resp: Any, req: Any, environ: Mapping[str, Any], request_time: timedelta, *, user: str | None, now: str
) -> dict[str, Any]:
    """Every atom of one exchange, unescaped. `docs/reference/logging.md` says what each is."""
    status = resp.status.split(None, 1)[0] if isinstance(resp.status, str) and resp.status.strip() else resp.status
    sent = getattr(resp, "sent", None)
    method, protocol = environ.get("REQUEST_METHOD", "-"), environ.get("SERVER_PROTOCOL", "-")
    # A clock that was set back must not give a negative duration.
    micros = max(request_time // timedelta(microseconds=1), 0)
    atoms: dict[str, Any] = {
        "h": environ.get("REMOTE_ADDR", "-"),
        "l": "-",
        "u": user or "-",
        "t": now,
        "r": f"{method} {environ.get('RAW_URI', '-')} {protocol}",
        "s": status,
        "m": method,
        "U": environ.get("PATH_INFO", "-"),
        "q": environ.get("QUERY_STRING", "-"),
        "H": protocol,
        "b": "-" if sent is None else str(sent),
        "B": 0 if sent is None else sent,
        "f": environ.get("HTTP_REFERER", "-"),
        "a": environ.get("HTTP_USER_AGENT", "-"),
        "T": micros // 1_000_000,
        "D": micros,
        "M": micros // 1_000,
        "L": f"{micros // 1_000_000}.{micros % 1_000_000:06d}",
        "p": f"<{os.getpid()}>",
    }
    for name, value in _fields(getattr(req, "headers", req)):
        atoms[f"{{{name.lower()}}}i"] = value
    for name, value in _fields(resp.headers):
        atoms[f"{{{name.lower()}}}o"] = value
    for name, value in environ.items():
        atoms[f"{{{name.lower()}}}e"] = value
    return atoms


def _fields(headers: Any) -> Iterable[tuple[str, Any]]:
    """Header fields as pairs, whether they come as a mapping or as a list, as text or as ASGI's bytes."""
    pairs = list(headers.items() if hasattr(headers, "items") else headers or ())
    if pairs and isinstance(pairs[0][0], bytes):
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
    return pairs


def basic_auth_user(authorization: str | None) -> str | None:
    """The user that a Basic Authorization field names (RFC 7617), one character a byte as everywhere in an environ."""
    if not authorization:
        return None
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(credentials.strip().encode("latin-1"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded.partition(b":")[0].decode("latin-1")


class _Sample:
    status = "200 OK"
    sent = 0
    headers: tuple[tuple[str, str], ...] = ()


def check_format(fmt: str) -> None:
    """Refuse a format that could not write a single line, before it fails once for every request."""
    atoms = SafeAtoms(gather_atoms(_Sample, _Sample, {}, timedelta(), user=None, now="[-]"))
    try:
        fmt % atoms
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"access_log_format: {fmt!r} cannot be formatted: {error}. Each atom is %(NAME)s, a percent sign is %%; "
            "only B, D, M and T are numbers."
        ) from None
