"""The measuring itself: rounds in which every entrant of a work takes its turn.

Owns       the order of things in a round: start, prove, warm up, read the clocks around the load, stop.
Never      formats or compares.
Invariant  entrants are interleaved (A B C, A B C, …), so a slow minute of the machine falls on all of them,
           and two entrants are only ever compared within one round.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from bench import load, process_tree
from bench.connections import ExchangeFailed, allow_descriptors
from bench.machine import Cores
from bench.results import Failure, Round
from bench.running import RunningServer, ServerFailed, on_core
from bench.servers import SERVERS, Order
from bench.works import Entrant, Work

# Enough for lazy imports, template caches and the interpreter's specialisation to settle.
WARM_UP_S: Final = 1

# What the warm-up left under way, up to 64 requests that nobody waits for any more, is done in this time:
# four threads that sleep 10 ms a request need 160 ms for it.
SETTLE_S: Final = 0.2


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: int
    cores: Cores


@dataclass
class Outcome:
    rounds: list[Round]
    failures: list[Failure]


def measure(work: Work, entrants: Iterable[Entrant], plan: Plan, say: Callable[[str], None]) -> Outcome:
    """All rounds of one work. An entrant that fails once is dropped from it, with its reason."""
    outcome = Outcome([], [])
    running = list(entrants)
    for number in range(1, plan.rounds + 1):
        for entrant in tuple(running):
            try:
                result = _measure_once(work, entrant, number, plan)
            except (ServerFailed, load.LoadFailed, ExchangeFailed) as error:
                running.remove(entrant)
                outcome.rounds = [one for one in outcome.rounds if one.entrant != entrant.key]
                outcome.failures.append(Failure(work.key, entrant.key, str(error)))
                say(f"{work.key:15} {entrant.key:18} failed: {error}")
            else:
                outcome.rounds.append(result)
                say(_line(result, plan.rounds))
    return outcome


def _measure_once(work: Work, entrant: Entrant, number: int, plan: Plan) -> Round:
    allow_descriptors(entrant.idle_connections)
    order = Order(
        work.app,
        connections_max=entrant.idle_connections + 2 * work.load.connections,
        workers=work.workers,
        options=entrant.options,
    )
    cpu = plan.cores.server if work.pinned else None
    with RunningServer(
        SERVERS[entrant.server], order, work.request(), cpu=cpu, access_log=entrant.access_log
    ) as server:
        _load(server, work, WARM_UP_S, plan)
        time.sleep(SETTLE_S)
        if entrant.idle_connections:
            return _measure_with_idle(server, work, entrant, number, plan)
        return _measure_load(server, work, entrant, number, plan)


def _measure_load(server: RunningServer, work: Work, entrant: Entrant, number: int, plan: Plan) -> Round:
    before_ns = process_tree.cpu_ns(server.pid)
    result = _load(server, work, max(plan.seconds, work.seconds_min), plan)
    cpu_ns = process_tree.cpu_ns(server.pid) - before_ns
    memory = process_tree.memory(server.pid)
    server.check_log(result.requests)
    return Round(
        work=work.key,
        entrant=entrant.key,
        number=number,
        requests=result.requests,
        seconds=result.seconds,
        cpu_us=cpu_ns / 1e3 / result.requests,
        rate=result.requests / result.seconds,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        max_ms=result.max_ms,
        pss_bytes=memory.pss_bytes,
        rss_bytes=memory.rss_bytes,
        errors=result.errors,
    )


def _measure_with_idle(server: RunningServer, work: Work, entrant: Entrant, number: int, plan: Plan) -> Round:
    count = entrant.idle_connections
    before = process_tree.memory(server.pid)
    command = [sys.executable, "-m", "bench.connections", str(server.order.port), str(count)]
    with on_core(plan.cores.load, command) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            raise ExchangeFailed(f"{count} connections could not be opened and used once each")
        growth_bytes = process_tree.memory(server.pid).pss_bytes - before.pss_bytes
        result = _measure_load(server, work, entrant, number, plan)
        holder.stdin.write("count\n")
        holder.stdin.flush()
        closed = int(holder.stdout.readline() or count)
    if closed:
        raise ExchangeFailed(f"the server closed {closed} of {count} idle connections")
    return Round(**{**vars(result), "idle_connection_bytes": growth_bytes / count})


def _load(server: RunningServer, work: Work, seconds: int, plan: Plan) -> load.LoadResult:
    return load.run(work.load, server.order.port, seconds=seconds, cpu=plan.cores.load if work.pinned else None)


def _line(one: Round, rounds: int) -> str:
    errors = f"  {one.errors} errors" if one.errors else ""
    return (
        f"{one.work:15} {one.entrant:18} {one.number}/{rounds}  "
        f"{one.cpu_us:7.1f} µs  {one.rate:8,.0f}/s  p99 {one.p99_ms:8.2f} ms  "
        f"{one.pss_bytes / 2**20:6.1f} MiB{errors}"
    )
