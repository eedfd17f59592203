"""What our own load clients print: the same line of JSON that wrk.lua prints.

Owns       the percentiles of a list of latencies.
Never      measures one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence


def print_result(latencies_ns: Sequence[int], seconds: float, *, errors: int = 0) -> None:
    """`errors` counts exchanges that had to be repeated because the connection broke."""
    ordered = sorted(latencies_ns) or [0]
    found = {
        "requests": len(latencies_ns),
        "duration_us": round(seconds * 1e6),
        "errors_status": 0,
        "errors_socket": errors,
        "p50_us": percentile(ordered, 50) / 1e3,
        "p99_us": percentile(ordered, 99) / 1e3,
        "max_us": ordered[-1] / 1e3,
    }
    print(json.dumps(found), flush=True)


def percentile(ordered: Sequence[int], percent: int) -> int:
    """The nearest rank, as wrk does: a latency that was measured, not one between two."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[rank - 1]
