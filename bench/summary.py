"""Medians, spreads, ratios and verdicts, computed from the rounds of a run.

Owns       every number that a reader sees.
Never      reads a clock, a file or a socket.
Invariant  a ratio is taken within one round and only then its median: the machine's mood cancels out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.results import Distribution, Round, Run
from bench.works import BOUNDS, SHARES, TARGETS, WORKS, Bound, Target


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
    at_least: bool = False
    # Every round has to reach it, not only the median.
    always: bool = False

    @property
    def word(self) -> str:
        if self.measured is None:
            return "not measured"
        worst = self.measured.low if self.at_least else self.measured.high
        deciding = worst if self.always else self.measured.median
        reached = deciding >= self.limit if self.at_least else deciding <= self.limit
        return "hit" if reached else "miss"


def rows(run: Run, work: str) -> list[Row]:
    """The entrants of a work, the cheapest first."""
    names = dict.fromkeys(one.entrant for one in run.rounds if one.work == work)
    found = [_row(run, work, name) for name in names]
    return sorted(found, key=lambda row: row.cpu_us.median)


def ratio(run: Run, work: str, of: str, against: str, metric: str = "cpu_us") -> Spread | None:
    """A metric of one entrant as a multiple of another's, round by round."""
    mine, theirs = (_by_number(run, work, entrant, metric) for entrant in (of, against))
    shared = [mine[number] / theirs[number] for number in mine if number in theirs]
    return spread(shared) if shared else None


def verdicts(run: Run) -> list[Verdict]:
    """Those of the works that were tried; what then could not be measured is said to be so."""
    tried = {one.work for one in run.rounds} | {one.work for one in run.failures}
    return [
        *(_verdict(run, target) for target in TARGETS if target.work in tried),
        *(_bound_verdict(run, bound) for bound in BOUNDS if bound.work in tried),
        *(verdict for one in run.distributions if one.server == "bicorn" for verdict in _share_verdicts(one)),
    ]


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
        bicorn_ratio=ratio(run, work, _counterpart(work, entrant), entrant),
        idle_connection_bytes=spread(idle) if idle else None,
    )


def _counterpart(work: str, entrant: str) -> str:
    """Ours under the same condition: what `granian+log` is compared with is `bicorn+log`."""
    _, plus, condition = entrant.partition("+")
    return WORKS[work].own + plus + condition


def _rounds(run: Run, work: str, entrant: str) -> list[Round]:
    return [one for one in run.rounds if one.work == work and one.entrant == entrant]


def _by_number(run: Run, work: str, entrant: str, metric: str) -> dict[int, float]:
    """A field of each round of an entrant, by the round's number; rounds without it are left out."""
    found = {one.number: getattr(one, metric) for one in _rounds(run, work, entrant)}
    return {number: value for number, value in found.items() if value is not None}


def _verdict(run: Run, target: Target) -> Verdict:
    best = _best(run, target)
    of_metric = {"cpu_us": "", "p99_ms": " in p99"}[target.metric]
    text = f"{target.work}: {target.of} / {best or ', '.join(target.against)}{of_metric}"
    if best and len(target.against) > 1:
        text += f" (best of {len(target.against)})"
    measured = ratio(run, target.work, target.of, best, target.metric) if best else None
    return Verdict(text, target.limit, measured, "×")


def _best(run: Run, target: Target) -> str | None:
    """The peer with the lowest median. Not the lowest of each round: that would be luck, once a round."""
    found = {peer: _by_number(run, target.work, peer, target.metric).values() for peer in target.against}
    medians = {peer: statistics.median(values) for peer, values in found.items() if values}
    return min(medians, key=medians.__getitem__, default=None)


def _bound_verdict(run: Run, bound: Bound) -> Verdict:
    values = list(_by_number(run, bound.work, bound.of, bound.metric).values())
    return Verdict(
        f"{bound.work}: {bound.what}, {bound.of}",
        bound.limit,
        spread(values) if values else None,
        bound.unit,
        bound.at_least,
        bound.always,
    )


def _share_verdicts(one: Distribution) -> tuple[Verdict, Verdict]:
    even = one.connections / one.workers
    idlest, busiest = (spread([count / even]) for count in (one.counts[-1], one.counts[0]))
    return (
        Verdict(f"distribution: busiest worker / even share, {one.server}", SHARES[1], busiest, "×"),
        Verdict(f"distribution: idlest worker / even share, {one.server}", SHARES[0], idlest, "×", at_least=True),
    )
