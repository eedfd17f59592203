"""One run of a load and what it says: wrk for requests, clients of our own for messages and for pace.

Owns       the command line of each load and the reading of its numbers.
Never      judges them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Final, TypeAlias

from bench.running import pinned
from bench.servers import ROOT

CONNECTIONS: Final = 64
HANG_TIMEOUT_S: Final = 60
_SCRIPT: Final = ROOT / "bench" / "wrk.lua"


@dataclass(frozen=True)
class HttpLoad:
    """wrk repeats one request on each keep-alive connection as fast as the answers come."""

    body_bytes: int = 0
    connections: int = CONNECTIONS
    unit = "request"

    def command(self, port: int, seconds: int) -> list[str]:
        command = ["wrk", "--threads", "1", "--connections", str(self.connections), "--latency"]
        command += ["--duration", f"{seconds}s", "--timeout", "10s", "--script", str(_SCRIPT)]
        return [*command, f"http://127.0.0.1:{port}/"]

    def environment(self) -> dict[str, str]:
        return {"BENCH_BODY_BYTES": str(self.body_bytes)}


@dataclass(frozen=True)
class EchoLoad:
    """WebSocket clients: each sends a text message and waits for its echo before it sends the next."""

    message_bytes: int
    connections: int = CONNECTIONS
    unit = "message"

    def command(self, port: int, seconds: int) -> list[str]:
        numbers = (port, self.connections, self.message_bytes, seconds)
        return [sys.executable, "-m", "bench.echo_clients", *map(str, numbers)]

    def environment(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class PacedLoad:
    """Clients that ask at a steady pace, whose latencies are measured, while others never pause.

    It leaves the server time to breathe, so its latencies say how long a request takes and not how
    saturation is shared out.
    """

    clients: int
    interval_ms: int
    # These ask for /slow, the next time as soon as they have the answer. Their own latency is not measured.
    slow_clients: int = 0
    unit = "request"

    @property
    def connections(self) -> int:
        return self.clients + self.slow_clients

    def command(self, port: int, seconds: int) -> list[str]:
        numbers = (port, self.clients, self.interval_ms, self.slow_clients, seconds)
        return [sys.executable, "-m", "bench.paced_clients", *map(str, numbers)]

    def environment(self) -> dict[str, str]:
        return {}


Load: TypeAlias = HttpLoad | EchoLoad | PacedLoad

# GET / without a body.
PLAIN: Final = HttpLoad()


class LoadFailed(Exception):
    """The load could not run or got no answers."""


@dataclass(frozen=True)
class LoadResult:
    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def run(load: Load, port: int, *, seconds: int, cpu: int | None) -> LoadResult:
    """Loads 127.0.0.1:port for whole seconds (wrk knows no others), from one core or from any."""
    try:
        done = subprocess.run(
            pinned(cpu, load.command(port, seconds)),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **load.environment()},
            timeout=seconds + HANG_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"the load did not end {HANG_TIMEOUT_S} s after its time") from None
    return _read(done.stdout, done.stderr)


def burst(load: HttpLoad, port: int, *, seconds: float, cpu: int) -> LoadResult:
    """The same for less than a second or so: wrk ends early when it is interrupted, and says what it did."""
    command = pinned(cpu, load.command(port, int(seconds) + HANG_TIMEOUT_S))
    pipe, env = subprocess.PIPE, {**os.environ, **load.environment()}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=env) as running:
        time.sleep(seconds)
        running.send_signal(signal.SIGINT)
        return _read(*running.communicate())


def _read(stdout: str, stderr: str) -> LoadResult:
    line = next((line for line in stdout.splitlines() if line.startswith('{"requests"')), None)
    if line is None:
        said = (stderr or stdout).strip().splitlines() or ["nothing at all"]
        raise LoadFailed(f"the load printed no result but {said[-1]}")
    found = json.loads(line)
    if found["requests"] == 0:
        raise LoadFailed("the load got no answer at all")
    return LoadResult(
        requests=found["requests"],
        seconds=found["duration_us"] / 1e6,
        errors=found["errors_status"] + found["errors_socket"],
        p50_ms=found["p50_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
        max_ms=found["max_us"] / 1e3,
    )
