"""A run as it is kept: every round of every entrant, and where it took place.

Owns       the shape of bench/results/*.json.
Never      summarises; summary.py computes from here, so a number in the docs can be traced to its rounds.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.machine import Environment, Machine
from bench.servers import ROOT

FOLDER: Final = ROOT / "bench" / "results"


@dataclass(frozen=True)
class Round:
    """One measurement: one server process, started for it, warmed up, loaded, stopped."""

    work: str
    entrant: str
    number: int
    requests: int
    seconds: float
    cpu_us: float  # of the process tree, per request
    rate: float  # requests per second
    p50_ms: float
    p99_ms: float
    max_ms: float
    pss_bytes: int
    rss_bytes: int
    errors: int
    # Growth of the tree's PSS for each idle connection, in works that hold some.
    idle_connection_bytes: float | None = None


@dataclass(frozen=True)
class Failure:
    """An entrant that could not do a work, and what it said. It has no rows there."""

    work: str
    entrant: str
    reason: str


@dataclass(frozen=True)
class Distribution:
    """How many of the short connections each worker of one server answered, most first."""

    server: str
    workers: int
    connections: int
    in_flight: int
    counts: list[int]


@dataclass
class Run:
    date: str  # UTC, ISO 8601
    mode: str  # "whole", "quick" or "partial"
    rounds_asked: int
    seconds_asked: int
    machine: Machine
    troubles: list[str] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    distributions: list[Distribution] = field(default_factory=list)

    def save(self) -> Path:
        """Writes <date>.json; quick and partial runs get a prefix that git ignores."""
        stamp = self.date.replace(":", "").removesuffix("Z")
        prefix = "" if self.mode == "whole" else f"{self.mode}-"
        path = FOLDER / f"{prefix}{stamp}.json"
        FOLDER.mkdir(exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        return path


def load(path: Path) -> Run:
    found = json.loads(path.read_text())
    machine = found["machine"]
    for side in ("bicorn", "peers"):
        machine[side] = Environment(**machine[side]) if machine[side] else None
    found["machine"] = Machine(**machine)
    found["rounds"] = [Round(**one) for one in found["rounds"]]
    found["failures"] = [Failure(**one) for one in found["failures"]]
    found["distributions"] = [Distribution(**one) for one in found["distributions"]]
    return Run(**found)


def newest() -> Path:
    """The newest whole run, by its name, which is its date."""
    whole = sorted(path for path in FOLDER.glob("*.json") if path.name[0].isdigit())
    if not whole:
        raise SystemExit(f"bench: no whole run in {FOLDER.relative_to(ROOT)}; run `make bench` first")
    return whole[-1]
