"""Two servers side by side: both run all the time, and short bursts of load go to one and the other by turns.

Owns       the order of the bursts, and the ratio with its uncertainty.
Never      stores anything: a pair is for whoever changes the code, a report is made from `rounds`.
Invariant  a ratio is taken between two bursts that follow each other at once, and which of the two comes
           first changes with each pair: what the machine does meanwhile falls on both.

A round of `rounds` starts its server afresh, so two rounds of one server differ by several percent: by where its
memory lies, and by what else the machine does in these seconds. Here that is left out or averaged out, and a
difference of one percent can be told from none in a minute.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench import load, process_tree
from bench.machine import Cores
from bench.running import RunningServer
from bench.servers import BICORN_PYTHON, ROOT, SERVERS, Order, Server
from bench.works import WORKS as _ALL
from bench.works import Work

BURSTS: Final = 40
BURST_S: Final = 0.5
_WARM_UP_S: Final = 2

# One worker on a core of its own, and wrk on the other.
WORKS: Final = [work.key for work in _ALL.values() if work.pinned and isinstance(work.load, load.HttpLoad)]


@dataclass(frozen=True)
class _Burst:
    cpu_ns: int
    requests: int

    @property
    def cost_us(self) -> float:
        return self.cpu_ns / 1e3 / self.requests


def server(text: str) -> Server:
    """`bicorn` is this checkout's, `bicorn@../other` the same server as another checkout has built it."""
    name, _, checkout = text.partition("@")
    if name not in SERVERS:
        raise SystemExit(f"bench: {name!r} is none of {', '.join(SERVERS)}")
    return _of_checkout(SERVERS[name], Path(checkout).resolve(), text) if checkout else SERVERS[name]


def _of_checkout(ours: Server, checkout: Path, name: str) -> Server:
    python = checkout / BICORN_PYTHON.relative_to(ROOT)
    if ours.python != BICORN_PYTHON or not python.exists():
        raise SystemExit(f"bench: {name} is not to be had: there is no {python}, or it has no such server")
    return replace(ours, name=name, python=python, command=lambda order: [str(python), *ours.command(order)[1:]])


def measure(work: Work, servers: tuple[Server, Server], bursts: int, seconds: float, cores: Cores) -> str:
    """What a request costs in both, and the ratio."""
    order = Order(work.app, connections_max=2 * work.load.connections)
    with contextlib.ExitStack() as stack:
        runners = [
            stack.enter_context(RunningServer(server, order, work.request(), cpu=cores.server)) for server in servers
        ]
        for runner in runners:
            _burst(work, runner, _WARM_UP_S, cores)
        pairs = [_pair(work, runners, number % 2 == 1, seconds, cores) for number in range(bursts)]
    return _report(work, servers, pairs)


def _pair(
    work: Work, runners: Sequence[RunningServer], reverse: bool, seconds: float, cores: Cores
) -> tuple[_Burst, _Burst]:
    order = reversed(runners) if reverse else runners
    done = {runner: _burst(work, runner, seconds, cores) for runner in order}
    one, other = runners
    return done[one], done[other]


def _burst(work: Work, runner: RunningServer, seconds: float, cores: Cores) -> _Burst:
    assert isinstance(work.load, load.HttpLoad)
    before_ns = process_tree.cpu_ns(runner.pid)
    result = load.burst(work.load, runner.order.port, seconds=seconds, cpu=cores.load)
    return _Burst(process_tree.cpu_ns(runner.pid) - before_ns, result.requests)


def _report(work: Work, servers: tuple[Server, Server], pairs: Sequence[tuple[_Burst, _Burst]]) -> str:
    lines = [f"{work.key}, {len(pairs)} bursts each: median CPU µs a request"]
    for server, bursts in zip(servers, zip(*pairs, strict=True), strict=True):
        lines.append(f"  {server.name:20} {statistics.median(burst.cost_us for burst in bursts):8.2f}")
    low, ratio, high = median_with_bounds([one.cost_us / other.cost_us for one, other in pairs])
    return "\n".join([*lines, f"  the first / the second: {ratio:.3f} ({low:.3f} to {high:.3f} with 95 % confidence)"])


def median_with_bounds(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the ranks around it that hold the true one with 95 % confidence, whatever the distribution."""
    ranked = sorted(ratios)
    low = max(0, math.floor(len(ranked) / 2 - 0.98 * math.sqrt(len(ranked))))
    return ranked[low], statistics.median(ranked), ranked[-1 - low]
