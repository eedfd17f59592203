"""The works that the servers are given, and what the issue tracker promised about each.

Owns       the list of works, who takes part in each, and the targets as ratios.
Never      measures.
Invariant  a target compares two entrants of the same work, so both were measured in the same rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KIB: Final = 1024


@dataclass(frozen=True)
class Entrant:
    """A server under one condition of a work."""

    server: str
    access_log: bool = False
    idle_connections: int = 0

    @property
    def key(self) -> str:
        suffix = "+log" if self.access_log else ""
        return self.server + suffix + ("+idle" if self.idle_connections else "")


@dataclass(frozen=True)
class Work:
    key: str
    title: str
    app: str
    entrants: tuple[Entrant, ...]
    # What a right answer's body is; checked before each measurement, so that all did the same work.
    answer: bytes
    request_body_bytes: int = 0
    note: str = ""


@dataclass(frozen=True)
class Target:
    """`of` may cost at most `limit` times what `against` costs a request in this work."""

    work: str
    of: str
    against: str
    limit: float


@dataclass(frozen=True)
class MemoryTarget:
    """An idle connection of `of` in this work may keep at most so many bytes resident."""

    work: str
    of: str
    bytes_max: int


_EVERYBODY: Final = (
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
_ALL: Final = tuple(Entrant(name) for name in _EVERYBODY)

# Those that can hold ten thousand connections with one worker. gunicorn sync and uwsgi's http-socket
# keep none; gthread and waitress bound them (1,000 and 100) because each costs them a descriptor in select().
_HOLDERS: Final = ("bicorn", "bjoern", "fastwsgi", "fastpysgi", "granian-1")
IDLE_CONNECTIONS: Final = 10_000

_HELLO: Final = b"Hello, world!"

_WORKS: Final = (
    Work("hello", "Hello, world", "bench.apps.hello:app", _ALL, _HELLO),
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
    Work(
        "send-64k",
        "A response of 64 KiB",
        "bench.apps.send_64k:app",
        _ALL,
        b"0123456789abcdef" * 4096,
    ),
    Work(
        "receive-64k",
        "A request body of 64 KiB",
        "bench.apps.receive_64k:app",
        _ALL,
        b"65536",
        request_body_bytes=64 * KIB,
        note="The application reads the whole body.",
    ),
    Work(
        "flask",
        "Hello, world through Flask",
        "bench.apps.flask_hello:app",
        _ALL,
        _HELLO,
    ),
    Work(
        "django",
        "Hello, world through Django",
        "bench.apps.django_hello:app",
        _ALL,
        _HELLO,
    ),
    Work(
        "idle",
        f"Hello, world while {IDLE_CONNECTIONS:,} keep-alive connections stay open",
        "bench.apps.hello:app",
        tuple(Entrant(name, idle_connections=count) for name in _HOLDERS for count in (0, IDLE_CONNECTIONS)),
        _HELLO,
        note="Each idle connection has had one answer before. Memory is the growth of the tree's PSS.",
    ),
)

WORKS: Final[Mapping[str, Work]] = {work.key: work for work in _WORKS}

# Both ways to run granian are held to its target: which one people use is not ours to choose.
TARGETS: Final = (
    Target("hello", "bicorn", "bjoern", 0.85),
    Target("hello", "bicorn", "granian", 0.45),
    Target("hello", "bicorn", "granian-1", 0.45),
    Target("hello", "bicorn", "gunicorn-sync", 0.05),
    Target("access-log", "bicorn+log", "bicorn", 1.10),
    Target("send-64k", "bicorn", "fastwsgi", 1.00),
    Target("flask", "bicorn", "bjoern", 1.00),
    Target("flask", "bicorn", "granian", 0.65),
    Target("flask", "bicorn", "granian-1", 0.65),
    Target("idle", "bicorn+idle", "bicorn", 1.10),
)
MEMORY_TARGETS: Final = (MemoryTarget("idle", "bicorn+idle", 4 * KIB),)
