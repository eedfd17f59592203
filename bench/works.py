"""The works that the servers are given, and what the issue tracker promised about each.

Owns       the list of works, who takes part in each, and the targets.
Never      measures.
Invariant  a ratio compares two entrants of the same work, so both were measured in the same rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.load import PLAIN, EchoLoad, HttpLoad, Load, PacedLoad
from bench.running import Request

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True)
class Entrant:
    """A server under one condition of a work."""

    server: str
    access_log: bool = False
    idle_connections: int = 0
    # What `options` are called in the tables.
    condition: str = ""
    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        conditions = ("log" if self.access_log else "", "idle" if self.idle_connections else "", self.condition)
        return "+".join((self.server, *filter(None, conditions)))


@dataclass(frozen=True)
class Work:
    key: str
    title: str
    app: str
    entrants: tuple[Entrant, ...]
    # What a right answer's body is; checked before each measurement, so that all did the same work.
    # None: whatever the application answers, as long as its status is 200.
    answer: bytes | None
    load: Load = PLAIN
    # The entrant of ours that the others' costs are compared with.
    own: str = "bicorn"
    # More than one worker gets all usable cores, shared with the load, as in production.
    workers: int = 1
    # Percentiles of a slow pace need more time than a rate does.
    seconds_min: int = 1
    has_length: bool = True
    note: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the server has one core and the load another."""
        return self.workers == 1

    def request(self) -> Request:
        """What proves that a server does this work."""
        body_bytes = self.load.body_bytes if isinstance(self.load, HttpLoad) else 0
        return Request(self.answer, body_bytes, has_length=self.has_length)


@dataclass(frozen=True)
class Target:
    """`of` may take at most `limit` times what the best of `against` takes in this work."""

    work: str
    of: str
    against: tuple[str, ...]
    limit: float
    # A field of results.Round.
    metric: str = "cpu_us"


@dataclass(frozen=True)
class Bound:
    """A number that an entrant must not exceed, or must reach."""

    work: str
    of: str
    metric: str  # A field of results.Round.
    what: str
    limit: float
    unit: str
    at_least: bool = False
    # Held in every round, not only by the median.
    always: bool = False


def _entrants(*servers: str) -> tuple[Entrant, ...]:
    return tuple(Entrant(server) for server in servers)


_WSGI: Final = _entrants(
    "bicorn",
    "bjoern",
    "fastwsgi",
    "fastpysgi",
    "granian",
    "granian-1",
    "uwsgi",
    "waitress",
    "gunicorn-sync",
    "gunicorn-gthread",
)
_ASGI: Final = _entrants("bicorn-asgi", "uvicorn", "granian-asgi", "fastpysgi-asgi", "gunicorn-asgi", "hypercorn")
_WEBSOCKET: Final = _entrants(
    "bicorn-asgi", "uvicorn", "uvicorn-websockets", "uvicorn-wsproto", "granian-ws", "gunicorn-asgi", "hypercorn"
)

# Those that can hold ten thousand connections with one worker. gunicorn sync and uwsgi's http-socket
# keep none; gthread and waitress bound them (1,000 and 100) because each costs them a descriptor in select().
_HOLDERS: Final = ("bicorn", "bjoern", "fastwsgi", "fastpysgi", "granian-1")
IDLE_CONNECTIONS: Final = 10_000

_HELLO: Final = b"Hello, world!"

_SYNC_WORKS: Final = (
    Work("hello", "Hello, world", "bench.apps.hello:app", _WSGI, _HELLO),
    Work(
        "access-log",
        "Hello, world with the access log on a file",
        "bench.apps.hello:app",
        (
            Entrant("bicorn"),
            Entrant("bicorn", access_log=True),
            Entrant("granian-1", access_log=True),
            Entrant("gunicorn-sync", access_log=True),
            Entrant("gunicorn-gthread", access_log=True),
        ),
        _HELLO,
        note="Each in its own default format.",
    ),
    Work("send-64k", "A response of 64 KiB", "bench.apps.send_64k:app", _WSGI, b"0123456789abcdef" * 4096),
    Work(
        "receive-64k",
        "A request body of 64 KiB",
        "bench.apps.receive_64k:app",
        _WSGI,
        b"65536",
        HttpLoad(body_bytes=64 * KIB),
        note="The application reads the whole body.",
    ),
    Work("flask", "Hello, world through Flask", "bench.apps.flask_hello:app", _WSGI, _HELLO),
    Work("django", "Hello, world through Django", "bench.apps.django_hello:app", _WSGI, _HELLO),
    Work(
        "idle",
        f"Hello, world while {IDLE_CONNECTIONS:,} keep-alive connections stay open",
        "bench.apps.hello:app",
        tuple(Entrant(name, idle_connections=count) for name in _HOLDERS for count in (0, IDLE_CONNECTIONS)),
        _HELLO,
        note="Each idle connection has had one answer before. Memory is the growth of the tree's PSS.",
    ),
)

_CLASS_WORKS: Final = (
    Work(
        "threads",
        "Hello, world in four threads",
        "bench.apps.hello:app",
        _entrants("bicorn-gthread", "granian", "granian-4", "gunicorn-gthread"),
        _HELLO,
        own="bicorn-gthread",
    ),
    Work(
        "greenlets",
        "Hello, world in greenlets",
        "bench.apps.hello:app",
        _entrants("bicorn-gevent", "bicorn-eventlet", "gunicorn-gevent"),
        _HELLO,
        own="bicorn-gevent",
        note="gunicorn 27 has no eventlet worker any more.",
    ),
    Work(
        "tornado",
        "Hello, world, WSGI in Tornado's container",
        "bench.apps.hello:app",
        _entrants("bicorn-tornado", "gunicorn-tornado"),
        _HELLO,
        own="bicorn-tornado",
    ),
    Work(
        "sleep",
        "A page that sleeps 10 ms, in four threads",
        "bench.apps.sleep_10ms:app",
        _entrants("bicorn-gthread", "granian-4", "gunicorn-gthread"),
        _HELLO,
        own="bicorn-gthread",
        note="64 connections share four threads, so no server can answer more than 4 / 0.010 s = 400 a second.",
    ),
    Work(
        "sleep-greenlets",
        "A page that sleeps 10 ms, in greenlets",
        "bench.apps.sleep_10ms:app",
        _entrants("bicorn-gevent", "bicorn-eventlet", "gunicorn-gevent"),
        _HELLO,
        own="bicorn-gevent",
        note="64 connections sleep at once, so no server can answer more than 64 / 0.010 s = 6,400 a second.",
    ),
)

_ASGI_WORKS: Final = (
    Work("asgi-hello", "ASGI: Hello, world", "bench.apps.asgi_hello:app", _ASGI, _HELLO, own="bicorn-asgi"),
    Work(
        "fastapi",
        "ASGI: JSON through FastAPI",
        "bench.apps.fastapi_json:app",
        _ASGI,
        b'{"message":"Hello, world!"}',
        own="bicorn-asgi",
    ),
    Work(
        "asgi-stream",
        "ASGI: 1 MiB streamed in sends of 16 KiB",
        "bench.apps.asgi_stream:app",
        tuple(one for one in _ASGI if one.server != "fastpysgi-asgi"),
        b"0123456789abcdef" * (MIB // 16),
        HttpLoad(connections=16),
        own="bicorn-asgi",
        has_length=False,
        note="16 connections; the application says no length, so the answers are chunked. fastpysgi 0.6 is not here: "
        "it sends the first part of such an answer and loses the others.",
    ),
    Work(
        "asgi-receive",
        "ASGI: an upload of 10 MiB",
        "bench.apps.asgi_receive:app",
        _ASGI,
        str(10 * MIB).encode(),
        # What is half sent when the time is over costs the server and counts for nothing: few connections.
        HttpLoad(body_bytes=10 * MIB, connections=4),
        own="bicorn-asgi",
        note="4 connections; the application receives the body piece by piece and keeps none of it.",
    ),
    Work(
        "websocket-64",
        "WebSocket: text messages of 64 B, echoed",
        "bench.apps.asgi_echo:app",
        _WEBSOCKET,
        _HELLO,
        EchoLoad(message_bytes=64),
        own="bicorn-asgi",
        note="64 clients of ours, each with one message under way, without compression.",
    ),
    Work(
        "websocket-16k",
        "WebSocket: text messages of 16 KiB, echoed",
        "bench.apps.asgi_echo:app",
        _WEBSOCKET,
        _HELLO,
        EchoLoad(message_bytes=16 * KIB),
        own="bicorn-asgi",
        note="64 clients of ours, each with one message under way, without compression.",
    ),
)

_OPERATION_WORKS: Final = (
    Work(
        "balance",
        "Quick requests beside slow ones, over four workers",
        "bench.apps.slow_and_quick:app",
        _entrants("bicorn", "bicorn-gthread-1", "gunicorn-sync", "gunicorn-gthread", "granian"),
        _HELLO,
        PacedLoad(clients=32, interval_ms=50, slow_clients=2),
        workers=4,
        seconds_min=4,
        note="Two keep-alive clients ask for a page of 200 ms without pause. The latencies are those of 32 others that "
        "ask for a quick one every 50 ms.",
    ),
    Work(
        "memory",
        "Memory of four Django workers",
        "bench.apps.django_site:app",
        (
            Entrant("bicorn"),
            Entrant("bicorn", condition="preload", options=("--preload",)),
            Entrant("bicorn", condition="refork", options=("--preload", "--refork", "100")),
            Entrant("gunicorn-sync"),
            Entrant("gunicorn-sync", condition="preload", options=("--preload",)),
        ),
        None,
        workers=4,
        # Workers are reforked one after another, and looked at once a second for it.
        seconds_min=6,
        note="The column that counts is PSS: the memory of the arbiter and its four workers, shared pages once.",
    ),
    Work(
        "gc",
        "Tail latency of a Django page, with garbage collection outside of requests",
        "bench.apps.django_site:app",
        (Entrant("bicorn"), Entrant("bicorn", condition="gc", options=("--gc-out-of-band", "100"))),
        None,
        PacedLoad(clients=8, interval_ms=50),
        seconds_min=4,
        note="8 clients ask for a page with a table of 100 rows every 50 ms.",
    ),
)

WORKS: Final[Mapping[str, Work]] = {
    work.key: work for work in (*_SYNC_WORKS, *_CLASS_WORKS, *_ASGI_WORKS, *_OPERATION_WORKS)
}


def _peers(work: str) -> tuple[str, ...]:
    """Everybody in a work who is not ours."""
    return tuple(one.key for one in WORKS[work].entrants if not one.server.startswith("bicorn"))


# Both ways to run granian are held to its target: which one people use is not ours to choose.
TARGETS: Final = (
    Target("hello", "bicorn", ("bjoern",), 0.85),
    Target("hello", "bicorn", ("granian",), 0.45),
    Target("hello", "bicorn", ("granian-1",), 0.45),
    Target("hello", "bicorn", ("gunicorn-sync",), 0.05),
    Target("access-log", "bicorn+log", ("bicorn",), 1.10),
    Target("send-64k", "bicorn", ("fastwsgi",), 1.00),
    Target("flask", "bicorn", ("bjoern",), 1.00),
    Target("flask", "bicorn", ("granian",), 0.65),
    Target("flask", "bicorn", ("granian-1",), 0.65),
    Target("idle", "bicorn+idle", ("bicorn",), 1.10),
    Target("threads", "bicorn-gthread", ("granian",), 0.75),
    Target("greenlets", "bicorn-gevent", ("gunicorn-gevent",), 0.35),
    Target("asgi-hello", "bicorn-asgi", ("granian-asgi", "fastpysgi-asgi"), 0.55),
    Target("asgi-hello", "bicorn-asgi", ("uvicorn",), 0.28),
    Target("fastapi", "bicorn-asgi", ("uvicorn", "granian-asgi", "fastpysgi-asgi"), 0.80),
    Target("asgi-stream", "bicorn-asgi", _peers("asgi-stream"), 0.90),
    Target("asgi-receive", "bicorn-asgi", _peers("asgi-receive"), 0.90),
    Target("websocket-64", "bicorn-asgi", _peers("websocket-64"), 0.70),
    Target("websocket-16k", "bicorn-asgi", _peers("websocket-16k"), 0.70),
    Target("balance", "bicorn", ("granian",), 1.00, metric="p99_ms"),
    Target("balance", "bicorn-gthread-1", ("granian",), 1.00, metric="p99_ms"),
)
BOUNDS: Final = (
    Bound("idle", "bicorn+idle", "idle_connection_bytes", "PSS an idle connection", 4 * KIB, " B"),
    Bound("sleep", "bicorn-gthread", "rate", "requests a second", 0.95 * 4 / 0.010, "/s", at_least=True),
    Bound("balance", "bicorn", "max_ms", "the slowest quick request", 50, " ms", always=True),
    Bound("balance", "bicorn-gthread-1", "max_ms", "the slowest quick request", 50, " ms", always=True),
)

# Equal workers' parts of many short connections, as multiples of an even share: within a fifth of it.
SHARES: Final = (0.80, 1.20)
