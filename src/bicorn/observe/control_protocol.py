"""The control protocol as values: JSON objects, one a line (docs/reference/control.md).

Owns       the version, the form of a request and of an answer, and their bounds.
Never      opens a socket, and knows no command.
Invariant  whatever bytes come in, the result is a Request or a Refused; nothing else is raised.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final

#: Raised when a request or an answer changes its meaning; new commands and new keys of results do not.
VERSION: Final = 1
#: A command with its arguments: a person could type it. Redis' inline commands end at 64 KiB.
REQUEST_BYTES_MAX: Final = 8 * 1024
#: The stacks of many workers are the longest answer; each is at most 256 KiB (ipc.stacks).
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024


class Refused(Exception):
    """A request that is not carried out; `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclasses.dataclass(frozen=True)
class Request:
    """One command with its arguments; `identifier` comes back in the answer."""

    command: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Any: whatever JSON holds
    identifier: str | int | None = None

    def refuse_unknown(self, *known: str) -> None:
        """Raise if there are other arguments: one that is misspelt must not be ignored."""
        unknown = sorted(set(self.arguments) - set(known))
        if unknown:
            takes = f"takes {', '.join(known)}" if known else "takes no arguments"
            raise Refused("bad-argument", f"{self.command}: {', '.join(unknown)} is not known; it {takes}")

    def flag(self, name: str) -> bool:
        """Give an argument that is true or false; false if it is absent."""
        value = self.arguments.get(name, False)
        if not isinstance(value, bool):
            raise Refused("bad-argument", f"{self.command}: {name} has to be true or false")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        """Give an argument that is a whole number in these bounds."""
        value = self.arguments.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Refused("bad-argument", f"{self.command}: {name} has to be a number from {low} to {high}")
        return value

    def numbers(self, name: str) -> list[int]:
        """Give an argument that is a list of whole numbers; empty if it is absent."""
        value = self.arguments.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
            raise Refused("bad-argument", f"{self.command}: {name} has to be a list of numbers")
        return value


def encode_request(request: Request) -> bytes:
    """Give the line of a request."""
    return _line(
        {
            "version": VERSION,
            "id": request.identifier,
            "command": request.command,
            "arguments": dict(request.arguments),
        }
    )


def decode_request(line: bytes) -> Request:
    """Read a request, or raise Refused."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("bad-request", "a request has to be one JSON object in one line") from None
    if not isinstance(value, dict) or not isinstance(value.get("command"), str):
        raise Refused("bad-request", 'a request has to be an object with a "command"')
    if value.get("version") != VERSION:
        raise Refused("bad-version", f'"version" has to be {VERSION}, the only one that this server speaks')
    arguments, identifier = value.get("arguments", {}), value.get("id")
    if not isinstance(arguments, dict):
        raise Refused("bad-request", '"arguments" has to be an object')
    if identifier is not None and not isinstance(identifier, (str, int)):
        raise Refused("bad-request", '"id" has to be a string or a number')
    return Request(value["command"], arguments, identifier)


def encode_result(identifier: str | int | None, result: Mapping[str, Any]) -> bytes:
    """Give the line that says that a command was carried out."""
    return _line({"version": VERSION, "id": identifier, "ok": True, "result": dict(result)})


def encode_refusal(identifier: str | int | None, refused: Refused) -> bytes:
    """Give the line that says why not."""
    error = {"code": refused.code, "message": refused.message}
    return _line({"version": VERSION, "id": identifier, "ok": False, "error": error})


def decode_answer(line: bytes) -> dict[str, Any]:
    """Give the result in a server's line, or raise Refused with what the server says."""
    try:
        value = json.loads(line)
        if value["ok"]:
            return dict(value["result"])
        refused = Refused(str(value["error"]["code"]), str(value["error"]["message"]))
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Refused("bad-answer", "the answer is not one of a Bicorn server") from None
    raise refused


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"
