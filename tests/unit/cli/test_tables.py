"""What a person reads of a server's answers."""

from __future__ import annotations

from typing import Any

import pytest

from bicorn.cli.tables import duration, size, stacks, status, table

WORKER: dict[str, Any] = {
    "pid": 8,
    "age": 1,
    "generation": 2,
    "state": "ready",
    "uptime_s": 61.0,
    "silent_s": 0.25,
    "connections": 3,
    "in_flight": 1,
    "requests": 7,
    "request": {"line": "GET /\x1b[31m?é=1", "running_s": 2.0},
    "memory_bytes": 3 * 2**20,
}
REPORT: dict[str, Any] = {
    "server": "bicorn/1.0",
    "name": "shop:app",
    "pid": 7,
    "phase": "running",
    "uptime_s": 7200.0,
    "generation": 2,
    "listeners": ["http://127.0.0.1:8000", "unix:/run/web.sock"],
    "worker_class": "sync",
    "workers_wanted": 2,
    "memory_bytes": 2**20,
    "last_reload": {"result": "failed", "message": "no such table", "seconds_ago": 5.0},
    "last_upgrade": None,
    "workers": [WORKER],
}


def test_a_status() -> None:
    lines = status(REPORT).splitlines()
    assert lines == [
        "bicorn/1.0 [shop:app], arbiter 7: running for 2 h 0 min, 1.0 MiB",
        "listening at http://127.0.0.1:8000, unix:/run/web.sock",
        "1 of 2 workers ready (sync), generation 2",
        "last reload: failed 5.0 s ago: no such table",
        "",
        "PID  AGE  GEN  STATE  UP         SILENT  CONNS  REQUESTS  IN FLIGHT  MEMORY   REQUEST",
        "8    1    2    ready  1 min 1 s  0.2 s   3      7         1          3.0 MiB  GET /�[31m?é=1 (2.0 s)",
    ]


def test_a_status_without_workers_and_after_an_upgrade() -> None:
    upgrade = {"result": "under way", "message": "it is starting", "seconds_ago": 0.1}
    lines = status({**REPORT, "workers": [], "last_reload": None, "last_upgrade": upgrade}).splitlines()
    assert lines[2:] == [
        "0 of 2 workers ready (sync), generation 2",
        "last reload: -",
        "last upgrade: under way 0.1 s ago: it is starting",
    ]


def test_stacks_of_several_workers() -> None:
    idle = {**WORKER, "pid": 9, "request": None, "stacks": "Thread B"}
    text = stacks({"workers": [{**WORKER, "stacks": "Thread A"}, idle]})
    assert text.split("\n\n")[1] == "Worker 9 (ready), serving: -\nThread B"
    assert stacks({"workers": []}) == "There are no workers."


def test_a_long_request_is_cut() -> None:
    worker = {**WORKER, "request": {"line": "GET /" + "x" * 500, "running_s": 0.0}}
    assert status({**REPORT, "workers": [worker]}).splitlines()[-1].endswith("x… (0.0 s)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes() -> None:
    assert size(1536 * 1024) == "1.5 MiB"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "LONG"), [("wide", "b")]) == ["A     LONG", "wide  b"]
