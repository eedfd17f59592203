"""What a server says of itself, as a person reads it.

Owns       the layout and the units of the text.
Never      asks a server.
Invariant  a value that is missing is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_REQUEST_CHARACTERS_MAX: Final = 60
_HEADS: Final = ("PID", "AGE", "GEN", "STATE", "UP", "SILENT", "CONNS", "REQUESTS", "IN FLIGHT", "MEMORY", "REQUEST")


def status(report: Mapping[str, Any]) -> str:
    """Lay out the answer to `status`."""
    ready = sum(worker["state"] == "ready" for worker in report["workers"])
    lines = [
        f"{report['server']} [{report['name']}], arbiter {report['pid']}: {report['phase']} "
        f"for {duration(report['uptime_s'])}, {size(report['memory_bytes'])}",
        f"listening at {', '.join(report['listeners']) or '-'}",
        f"{ready} of {report['workers_wanted']} workers ready ({report['worker_class']}), "
        f"generation {report['generation']}",
        f"last reload: {_outcome(report['last_reload'])}",
    ]
    if report["last_upgrade"] is not None:
        lines.append(f"last upgrade: {_outcome(report['last_upgrade'])}")
    if report["workers"]:
        lines += ["", *table(_HEADS, [_row(worker) for worker in report["workers"]])]
    return "\n".join(lines)


def stacks(result: Mapping[str, Any]) -> str:
    """Lay out the answer to `stacks`."""
    parts = [
        f"Worker {worker['pid']} ({worker['state']}), serving: {_request(worker['request'])}\n{worker['stacks']}"
        for worker in result["workers"]
    ]
    return "\n\n".join(parts) or "There are no workers."


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns: numbers would be to the right, but a person looks for the row, so all are to the left."""
    return columns((heads, *rows))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Give rows as lines, each column as wide as its widest entry."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """Give a duration in at most two units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, next_unit, length, step in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} {int(seconds % length // step)} {next_unit}"
    raise AssertionError("a minute is the smallest of them")


def size(count: float) -> str:
    """Give bytes in MiB."""
    return f"{count / 2**20:.1f} MiB"


def _row(worker: Mapping[str, Any]) -> list[str]:
    return [
        str(worker["pid"]),
        str(worker["age"]),
        str(worker["generation"]),
        worker["state"],
        duration(worker["uptime_s"]),
        duration(worker["silent_s"]),
        str(worker["connections"]),
        str(worker["requests"]),
        str(worker["in_flight"]),
        size(worker["memory_bytes"]),
        _request(worker["request"]),
    ]


def _request(request: Mapping[str, Any] | None) -> str:
    if request is None:
        return "-"
    line = request["line"]
    if len(line) > _REQUEST_CHARACTERS_MAX:
        line = f"{line[: _REQUEST_CHARACTERS_MAX - 1]}…"
    # What a client chose to ask for must not steer the terminal.
    shown = "".join(char if char.isprintable() else "�" for char in line)
    return f"{shown} ({duration(request['running_s'])})"


def _outcome(outcome: Mapping[str, Any] | None) -> str:
    if outcome is None:
        return "-"
    return f"{outcome['result']} {duration(outcome['seconds_ago'])} ago: {outcome['message']}"
