"""The servers that are compared, each in its best documented ordinary configuration for one core.

Owns       the command line of every entrant and the sentence that says what it is.
Never      starts anything.
Invariant  every entrant serves the same `module:attribute` on 127.0.0.1 with one worker, keeps
           connections alive if it can, and writes no access log unless the order asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BICORN_PYTHON: Final = ROOT / ".venv" / "bin" / "python"
PEERS_PYTHON: Final = ROOT / ".venv-bench" / "bin" / "python"

# Longer than any single measurement, so that no server closes an idle connection under the load.
KEEP_ALIVE_S: Final = 600


@dataclass(frozen=True)
class Order:
    """What a server is asked to do in one measurement."""

    app: str
    port: int
    # Every request is logged into this file; None means no access log at all.
    access_log: Path | None = None
    # Connections held open at once. Servers with a cap of their own are told to allow them.
    connections_max: int = 64
    workers: int = 1

    @property
    def bind(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Server:
    name: str
    # The distribution on PyPI whose version is reported.
    distribution: str
    python: Path
    command: Callable[[Order], list[str]]
    about: str
    # The server logs requests to its standard output instead of a file that can be named.
    logs_to_stdout: bool = False


def _bicorn(order: Order) -> list[str]:
    return [str(BICORN_PYTHON), "-m", "bicorn", *_gunicorn_options(order, "sync")]


def _gunicorn(order: Order, worker_class: str, *more: str) -> list[str]:
    # Its heartbeat is a file touched by each worker; its documentation asks for a memory file system.
    memory = ["--worker-tmp-dir", "/dev/shm"]
    options = _gunicorn_options(order, worker_class, *more, *memory)
    return [str(PEERS_PYTHON), "-m", "gunicorn", *options]


def _gunicorn_options(order: Order, worker_class: str, *more: str) -> list[str]:
    options = [
        "--bind",
        order.bind,
        "--workers",
        str(order.workers),
        "-k",
        worker_class,
    ]
    options += ["--keep-alive", str(KEEP_ALIVE_S), *more]
    if order.access_log is not None:
        options += ["--access-logfile", str(order.access_log)]
    return [*options, order.app]


def _granian(order: Order, *more: str) -> list[str]:
    command = [
        str(PEERS_PYTHON.with_name("granian")),
        "--interface",
        "wsgi",
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(order.port), "--workers", str(order.workers)]
    # Its own benchmarks run so: HTTP/1 known in advance, no WebSocket check.
    command += ["--http", "1", "--no-ws", "--log-level", "warning", *more]
    if order.connections_max > 1024:  # A connection holds one permit of its backpressure, idle or not.
        command += [
            "--backlog",
            str(order.connections_max),
            "--backpressure",
            str(order.connections_max),
        ]
    if order.access_log is not None:
        command += ["--access-log", "--log-level", "info"]
    return [*command, order.app]


def _uwsgi(order: Order) -> list[str]:
    command = [str(PEERS_PYTHON.with_name("uwsgi")), "--http-socket", order.bind]
    command += [
        "--master",
        "--processes",
        str(order.workers),
        "--need-app",
        "--die-on-term",
    ]
    command += ["--virtualenv", str(PEERS_PYTHON.parent.parent), "--module", order.app]
    # It closes each connection without saying so; said, clients need not run into the close.
    command += [
        "--add-header",
        "Connection: close",
        "--listen",
        "1024",
        "--disable-logging",
    ]
    return command


def _launched(server_name: str) -> Callable[[Order], list[str]]:
    def command(order: Order) -> list[str]:
        return [
            str(PEERS_PYTHON),
            "-m",
            "bench.launch",
            server_name,
            order.app,
            str(order.port),
        ]

    return command


_ALL: Final = (
    Server(
        "bicorn",
        "bicorn",
        BICORN_PYTHON,
        _bicorn,
        "-k sync, one worker and its arbiter",
    ),
    Server(
        "bjoern",
        "bjoern",
        PEERS_PYTHON,
        _launched("bjoern"),
        "bjoern.run(), one process",
    ),
    Server(
        "fastwsgi",
        "fastwsgi",
        PEERS_PYTHON,
        _launched("fastwsgi"),
        "fastwsgi.run(), one process",
    ),
    Server(
        "fastpysgi",
        "fastpysgi",
        PEERS_PYTHON,
        _launched("fastpysgi"),
        "fastpysgi.run(), one process",
    ),
    Server(
        "granian",
        "granian",
        PEERS_PYTHON,
        _granian,
        "--interface wsgi, its default threads; one worker and its main process",
        logs_to_stdout=True,
    ),
    Server(
        "granian-1",
        "granian",
        PEERS_PYTHON,
        lambda order: _granian(order, "--blocking-threads", "1"),
        "the same with --blocking-threads 1",
        logs_to_stdout=True,
    ),
    Server(
        "uwsgi",
        "uWSGI",
        PEERS_PYTHON,
        _uwsgi,
        "--http-socket: no keep-alive, but cheaper than its router or http11-socket; master, one process",
    ),
    Server(
        "waitress",
        "waitress",
        PEERS_PYTHON,
        _launched("waitress"),
        "waitress.serve() with its four threads, one process",
    ),
    Server(
        "gunicorn-sync",
        "gunicorn",
        PEERS_PYTHON,
        lambda order: _gunicorn(order, "sync"),
        "-k sync (has no keep-alive), one worker and its arbiter",
    ),
    Server(
        "gunicorn-gthread",
        "gunicorn",
        PEERS_PYTHON,
        lambda order: _gunicorn(order, "gthread", "--threads", "4"),
        "-k gthread --threads 4, one worker and its arbiter",
    ),
)

SERVERS: Final[Mapping[str, Server]] = {server.name: server for server in _ALL}
