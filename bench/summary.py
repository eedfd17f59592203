"""Medians, spreads, ratios and verdicts, computed from the rounds of a run.

Owns       every number that a reader sees.
Never      reads a clock, a file or a socket.
Invariant  a ratio is taken within one round and only then its median: the machine's mood cancels out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import Round, Run
from bench.works import MEMORY_TARGETS, TARGETS, MemoryTarget, Target


@dataclass(frozen=True)
class Spread:
    """The middle of the rounds and their ends."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One entrant in one work."""

    entrant: str
    cpu_us: Spread
    rate: Spread
    # The part of its core that the tree used. Well below 1 the load was the bottleneck, so the rate says
    # little; the cost a request still holds.
    busy: Spread
    p50_ms: Spread
    p99_ms: Spread
    max_ms: Spread
    pss_mib: Spread
    rss_mib: Spread
    errors: int
    # Bicorn's cost as a part of this entrant's, in the same rounds; None where Bicorn has no rows.
    bicorn_ratio: Spread | None
    idle_connection_bytes: Spread | None


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, and whether it was reached. None: it was not measured."""

    text: str
    limit: float
    measured: Spread | None
    unit: str

    @property
    def word(self) -> str:
        if self.measured is None:
            return "not measured"
        return "hit" if self.measured.median <= self.limit else "miss"


def rows(run: Run, work: str) -> list[Row]:
    """The entrants of a work, the cheapest first."""
    names = dict.fromkeys(one.entrant for one in run.rounds if one.work == work)
    found = [_row(run, work, name) for name in names]
    return sorted(found, key=lambda row: row.cpu_us.median)


def ratio(run: Run, work: str, of: str, against: str) -> Spread | None:
    """CPU per request of one entrant as a multiple of another's, round by round."""
    mine = {one.number: one.cpu_us for one in _rounds(run, work, of)}
    theirs = {one.number: one.cpu_us for one in _rounds(run, work, against)}
    shared = [mine[number] / theirs[number] for number in mine if number in theirs]
    return spread(shared) if shared else None


def verdicts(run: Run) -> list[Verdict]:
    return [_verdict(run, target) for target in TARGETS] + [_memory_verdict(run, target) for target in MEMORY_TARGETS]


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def _row(run: Run, work: str, entrant: str) -> Row:
    mine = _rounds(run, work, entrant)
    idle = [one.idle_connection_bytes for one in mine if one.idle_connection_bytes is not None]
    return Row(
        entrant=entrant,
        cpu_us=spread([one.cpu_us for one in mine]),
        rate=spread([one.rate for one in mine]),
        busy=spread([one.cpu_us * one.rate / 1e6 for one in mine]),
        p50_ms=spread([one.p50_ms for one in mine]),
        p99_ms=spread([one.p99_ms for one in mine]),
        max_ms=spread([one.max_ms for one in mine]),
        pss_mib=spread([one.pss_bytes / 2**20 for one in mine]),
        rss_mib=spread([one.rss_bytes / 2**20 for one in mine]),
        errors=sum(one.errors for one in mine),
        bicorn_ratio=ratio(run, work, _counterpart(entrant), entrant),
        idle_connection_bytes=spread(idle) if idle else None,
    )


def _counterpart(entrant: str) -> str:
    """Bicorn under the same condition: what `granian+log` is compared with is `bicorn+log`."""
    _, plus, condition = entrant.partition("+")
    return "bicorn" + plus + condition


def _rounds(run: Run, work: str, entrant: str) -> list[Round]:
    return [one for one in run.rounds if one.work == work and one.entrant == entrant]


def _verdict(run: Run, target: Target) -> Verdict:
    text = f"{target.work}: {target.of} / {target.against}"
    return Verdict(text, target.limit, ratio(run, target.work, target.of, target.against), "×")


def _memory_verdict(run: Run, target: MemoryTarget) -> Verdict:
    held = [row for row in rows(run, target.work) if row.entrant == target.of]
    measured = held[0].idle_connection_bytes if held else None
    text = f"{target.work}: PSS an idle connection, {target.of}"
    return Verdict(text, target.bytes_max, measured, " B")
