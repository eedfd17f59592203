"""The commands of `bicornctl` that a running server carries out.

Owns       which server is meant, and what a person reads of its answer.
Never      prints: every command gives the text.
Invariant  when it is not clear which server is meant, nothing is sent to any.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bicorn.cli import tables
from bicorn.observe.control_client import ControlClient, ControlClientError, connect
from bicorn.observe.control_path import find_socket_of, find_sockets
from bicorn.observe.control_protocol import Refused

IDENTITY_TIMEOUT_S: Final = 1.0  # for a line that only helps to choose


def status(arguments: argparse.Namespace) -> str:
    """Show the server and its workers."""
    report = _ask(arguments, "status")
    return _as_json(report) if arguments.json else tables.status(report)


def reload(arguments: argparse.Namespace) -> str:
    """Reload, and wait for what comes of it."""
    result = _ask(arguments, "reload")
    return _as_json(result) if arguments.json else f"Reloaded: {result['message']}."


def upgrade(arguments: argparse.Namespace) -> str:
    """Replace the arbiter, and wait for what comes of it."""
    result = _ask(arguments, "upgrade")
    return _as_json(result) if arguments.json else f"Upgraded: {result['message']}."


def stop(arguments: argparse.Namespace) -> str:
    """Stop the server, and wait until it is gone."""
    with _server(arguments) as server:
        result = server.ask("stop", {"quick": arguments.quick})
        server.wait_for_end()
    return _as_json(result) if arguments.json else f"Stopped (the arbiter was {result['pid']})."


def scale(arguments: argparse.Namespace) -> str:
    """Set the number of workers."""
    result = _ask(arguments, "scale", {"workers": arguments.workers})
    wanted, before = result["workers_wanted"], result["workers_wanted_before"]
    return _as_json(result) if arguments.json else f"Workers wanted: {wanted} (before: {before})."


def stacks(arguments: argparse.Namespace) -> str:
    """Show the stacks of workers."""
    result = _ask(arguments, "stacks", {"pids": arguments.pids})
    return _as_json(result) if arguments.json else tables.stacks(result)


def _ask(arguments: argparse.Namespace, command: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    with _server(arguments) as server:
        return server.ask(command, values)


@contextlib.contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[ControlClient]:
    pid: int | None = _pid_in(arguments.pidfile) if arguments.pidfile is not None else arguments.pid
    with connect(str(_socket(arguments.socket, pid)), arguments.timeout) as client:
        if pid is not None and client.peer_pid not in (pid, 0):
            raise ControlClientError(
                f"the control socket of process {pid} belongs to process {client.peer_pid} now, which replaces it in a "
                f"binary upgrade; use --pid {client.peer_pid}, or signals for the old one"
            )
        yield client


def _socket(socket: str | None, pid: int | None) -> Path:
    if socket is not None:
        return Path(socket)
    return _the_only_one() if pid is None else _socket_of(pid)


def _pid_in(pidfile: str) -> int:
    try:
        return int(Path(pidfile).read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no pid in it"
        raise ControlClientError(f"{pidfile}: {reason}; is the server running?") from None


def _socket_of(pid: int) -> Path:
    found = find_socket_of(pid)
    if found is not None:
        return found
    if not Path(f"/proc/{pid}").exists():
        raise ControlClientError(f"there is no process {pid}")
    raise ControlClientError(
        f"process {pid} has no control socket that we can see: it is no arbiter (a worker's parent is), or belongs to "
        "another user (try as root), or has control_socket_disable, or a control_socket whose name does not end in "
        ".ctl (use --socket)"
    )


def _the_only_one() -> Path:
    found = find_sockets(os.environ, os.geteuid())
    if len(found) == 1:
        return found[0]
    if not found:
        raise ControlClientError(
            "no running server was found; say which one with --pid, --pidfile or --socket (one of another user is "
            "found as that user or as root)"
        )
    choices = "\n".join(tables.columns([(f"  --socket {path}", _identity(path)) for path in found]))
    raise ControlClientError(f"{len(found)} servers are running; say which one:\n{choices}")


def _identity(path: Path) -> str:
    """Give what a person knows a server by, as far as it answers."""
    try:
        with connect(str(path), IDENTITY_TIMEOUT_S) as client:
            report = client.ask("status")
    except (ControlClientError, Refused) as error:
        return f"({error})"
    return f"{report['name']} at {', '.join(report['listeners']) or '-'}"


def _as_json(result: Mapping[str, Any]) -> str:
    return json.dumps(result, indent=2)
