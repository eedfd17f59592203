"""The servers that are compared, each in its best documented ordinary configuration for one core.

Owns       the command line of every entrant and the sentence that says what it is.
Never      starts anything.
Invariant  every entrant serves the same `module:attribute` on 127.0.0.1 with as many workers as the order
           says, keeps connections alive if it can, and writes no access log unless the order asks for one.
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
    # 0 until RunningServer has found a free one.
    port: int = 0
    # Every request is logged into this file; None means no access log at all.
    access_log: Path | None = None
    # Connections held open at once. Servers with a cap of their own are told to allow them.
    connections_max: int = 64
    workers: int = 1
    # More arguments, in the server's own words: the condition that an entrant is measured under.
    options: tuple[str, ...] = ()

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


def _bicorn(worker_class: str, *more: str) -> Callable[[Order], list[str]]:
    return lambda order: [str(BICORN_PYTHON), "-m", "bicorn", *_gunicorn_options(order, worker_class, *more)]


def _gunicorn(worker_class: str, *more: str) -> Callable[[Order], list[str]]:
    # Its heartbeat is a file touched by each worker; its documentation asks for a memory file system.
    more = (*more, "--worker-tmp-dir", "/dev/shm")
    return lambda order: [str(PEERS_PYTHON), "-m", "gunicorn", *_gunicorn_options(order, worker_class, *more)]


def _gunicorn_options(order: Order, worker_class: str, *more: str) -> list[str]:
    options = ["--bind", order.bind, "--workers", str(order.workers), "-k", worker_class]
    options += ["--keep-alive", str(KEEP_ALIVE_S), *more, *order.options]
    if order.access_log is not None:
        options += ["--access-logfile", str(order.access_log)]
    return [*options, order.app]


def _granian(interface: str, *more: str) -> Callable[[Order], list[str]]:
    def command(order: Order) -> list[str]:
        command = [str(PEERS_PYTHON.with_name("granian")), "--interface", interface]
        command += ["--host", "127.0.0.1", "--port", str(order.port), "--workers", str(order.workers)]
        # Its own benchmarks run so: HTTP/1 known in advance.
        command += ["--http", "1", "--log-level", "warning", *more]
        if order.connections_max > 1024:  # A connection holds one permit of its backpressure, idle or not.
            count = str(order.connections_max)
            command += ["--backlog", count, "--backpressure", count]
        if order.access_log is not None:
            command += ["--access-log", "--log-level", "info"]
        return [*command, order.app]

    return command


def _uvicorn(*more: str) -> Callable[[Order], list[str]]:
    def command(order: Order) -> list[str]:
        command = [str(PEERS_PYTHON), "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(order.port)]
        command += ["--workers", str(order.workers), "--loop", "uvloop", "--http", "httptools"]
        command += ["--timeout-keep-alive", str(KEEP_ALIVE_S), "--no-access-log", "--log-level", "warning"]
        return [*command, *more, order.app]

    return command


def _hypercorn(order: Order) -> list[str]:
    command = [str(PEERS_PYTHON), "-m", "hypercorn", "--bind", order.bind, "--workers", str(order.workers)]
    command += ["--worker-class", "uvloop", "--keep-alive", str(KEEP_ALIVE_S), "--log-level", "warning"]
    return [*command, order.app]


def _uwsgi(order: Order) -> list[str]:
    command = [str(PEERS_PYTHON.with_name("uwsgi")), "--http-socket", order.bind]
    command += ["--master", "--processes", str(order.workers), "--need-app", "--die-on-term"]
    command += ["--virtualenv", str(PEERS_PYTHON.parent.parent), "--module", order.app]
    # It closes each connection without saying so; said, clients need not run into the close.
    return [*command, "--add-header", "Connection: close", "--listen", "1024", "--disable-logging"]


def _launched(server_name: str) -> Callable[[Order], list[str]]:
    return lambda order: [str(PEERS_PYTHON), "-m", "bench.launch", server_name, order.app, str(order.port)]


def _our(name: str, worker_class: str, about: str, *more: str) -> Server:
    return Server(name, "bicorn", BICORN_PYTHON, _bicorn(worker_class, *more), about)


def _peer(name: str, distribution: str, command: Callable[[Order], list[str]], about: str) -> Server:
    return Server(name, distribution, PEERS_PYTHON, command, about, logs_to_stdout=distribution == "granian")


_BICORN: Final = (
    _our("bicorn", "sync", "-k sync; workers and their arbiter"),
    _our("bicorn-gthread", "gthread", "-k gthread --threads 4", "--threads", "4"),
    _our("bicorn-gthread-1", "gthread", "-k gthread --threads 1", "--threads", "1"),
    _our("bicorn-gevent", "gevent", "-k gevent"),
    _our("bicorn-eventlet", "eventlet", "-k eventlet"),
    _our("bicorn-tornado", "tornado", "-k tornado"),
    _our("bicorn-asgi", "asgi", "-k asgi, on uvloop"),
)

_WSGI_PEERS: Final = (
    _peer("bjoern", "bjoern", _launched("bjoern"), "bjoern.run(), one process"),
    _peer("fastwsgi", "fastwsgi", _launched("fastwsgi"), "fastwsgi.run(), one process"),
    _peer("fastpysgi", "fastpysgi", _launched("fastpysgi"), "fastpysgi.run(), one process"),
    _peer(
        "granian",
        "granian",
        _granian("wsgi", "--no-ws"),
        "--interface wsgi, its default threads; workers and their main process",
    ),
    _peer(
        "granian-1",
        "granian",
        _granian("wsgi", "--no-ws", "--blocking-threads", "1"),
        "the same with --blocking-threads 1",
    ),
    _peer(
        "granian-4",
        "granian",
        _granian("wsgi", "--no-ws", "--blocking-threads", "4"),
        "the same with --blocking-threads 4",
    ),
    _peer(
        "uwsgi",
        "uWSGI",
        _uwsgi,
        "--http-socket: no keep-alive, but cheaper than its router or http11-socket; master, one process",
    ),
    _peer("waitress", "waitress", _launched("waitress"), "waitress.serve() with its four threads, one process"),
    _peer("gunicorn-sync", "gunicorn", _gunicorn("sync"), "-k sync (has no keep-alive); workers and their arbiter"),
    _peer("gunicorn-gthread", "gunicorn", _gunicorn("gthread", "--threads", "4"), "-k gthread --threads 4"),
    _peer("gunicorn-gevent", "gunicorn", _gunicorn("gevent"), "-k gevent"),
    _peer("gunicorn-tornado", "gunicorn", _gunicorn("tornado"), "-k tornado"),
)

_ASGI_PEERS: Final = (
    _peer("uvicorn", "uvicorn", _uvicorn(), "uvloop, httptools; WebSockets by its default, websockets without its I/O"),
    _peer("uvicorn-websockets", "uvicorn", _uvicorn("--ws", "websockets"), "the same with --ws websockets"),
    _peer("uvicorn-wsproto", "uvicorn", _uvicorn("--ws", "wsproto"), "the same with --ws wsproto"),
    _peer("granian-asgi", "granian", _granian("asgi", "--no-ws", "--loop", "uvloop"), "--interface asgi, uvloop"),
    _peer("granian-ws", "granian", _granian("asgi", "--ws", "--loop", "uvloop"), "the same with WebSockets enabled"),
    _peer("fastpysgi-asgi", "fastpysgi", _launched("fastpysgi"), "fastpysgi.run(), one process; has no WebSockets"),
    _peer("gunicorn-asgi", "gunicorn", _gunicorn("asgi", "--asgi-loop", "uvloop"), "-k asgi on uvloop"),
    _peer("hypercorn", "hypercorn", _hypercorn, "-k uvloop; its worker and main process"),
)

SERVERS: Final[Mapping[str, Server]] = {server.name: server for server in (*_BICORN, *_WSGI_PEERS, *_ASGI_PEERS)}
