"""One run of wrk and what it says.

Owns       wrk's command line and the reading of its numbers.
Never      judges them.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Final

from bench.running import pinned
from bench.servers import ROOT

CONNECTIONS: Final = 64
_SCRIPT: Final = ROOT / "bench" / "wrk.lua"


class LoadFailed(Exception):
    """wrk could not run or got no answers."""


@dataclass(frozen=True)
class LoadResult:
    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def run(port: int, *, seconds: int, cpu: int, body_bytes: int = 0) -> LoadResult:
    """Loads http://127.0.0.1:port/ from 64 keep-alive connections on one thread of one core.

    wrk knows whole seconds only.
    """
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--latency"]
    command += [
        "--duration",
        f"{seconds}s",
        "--timeout",
        "10s",
        "--script",
        str(_SCRIPT),
    ]
    done = subprocess.run(
        pinned(cpu, [*command, f"http://127.0.0.1:{port}/"]),
        capture_output=True,
        text=True,
        env={**os.environ, "BENCH_BODY_BYTES": str(body_bytes)},
        check=False,
    )
    line = next(
        (line for line in done.stdout.splitlines() if line.startswith('{"requests"')),
        None,
    )
    if line is None:
        raise LoadFailed(f"wrk printed no result: {(done.stderr or done.stdout).strip()[-200:]}")
    found = json.loads(line)
    if found["requests"] == 0:
        raise LoadFailed("wrk got no answer at all")
    return LoadResult(
        requests=found["requests"],
        seconds=found["duration_us"] / 1e6,
        errors=found["errors_status"] + found["errors_socket"],
        p50_ms=found["p50_us"] / 1e3,
        p99_ms=found["p99_us"] / 1e3,
        max_ms=found["max_us"] / 1e3,
    )
