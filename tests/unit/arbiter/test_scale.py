"""The number of workers that a load asks for, as values."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bicorn.arbiter.scale import Bounds, Load, Scale, first_target, places_of, rescale
from bicorn.config import load_settings
from bicorn.net.listener import accept_queue

BOUNDS = Bounds(least=1, most=12, up_after=3.0, down_after=60.0)
CALM, IDLE, BUSY = Load(0.7, 0.0, 0), Load(0.0, 0.0, 0), Load(0.9, 0.0, 0)

TABLE = {
    "a calm load changes nothing": (Scale(4), CALM, Scale(4)),
    "a busy one has to last": (Scale(4), BUSY, Scale(4, high_since=100.0)),
    "a busy one has lasted": (Scale(4, high_since=97.0), BUSY, Scale(5)),
    "a quarter is added": (Scale(9, high_since=97.0), BUSY, Scale(11)),
    "but never more than may be": (Scale(11, high_since=97.0), BUSY, Scale(12)),
    "at the most nothing is left to do": (Scale(12, high_since=0.0), BUSY, Scale(12, high_since=0.0)),
    "a calm moment begins the count anew": (Scale(4, high_since=97.0), CALM, Scale(4)),
    "requests that wait count as well": (Scale(4, high_since=97.0), Load(0.1, 0.06, 0), Scale(5)),
    "and connections that nobody accepts": (Scale(4, high_since=97.0), Load(0.1, 0.0, 1), Scale(5)),
    "an idle load has to last": (Scale(4), IDLE, Scale(4, low_since=100.0)),
    "an idle one has lasted": (Scale(4, low_since=40.0), IDLE, Scale(3, low_since=100.0)),
    "the last worker stays": (Scale(1, low_since=0.0), IDLE, Scale(1)),
    "what the others could not carry is kept": (Scale(2, low_since=0.0), Load(0.4, 0.0, 0), Scale(2)),
    "what was set by hand comes back within the bounds": (Scale(20), CALM, Scale(12)),
}


@pytest.mark.parametrize(("scale", "load", "expected"), TABLE.values(), ids=TABLE.keys())
def test_what_a_load_asks_for(scale: Scale, load: Load, expected: Scale) -> None:
    assert rescale(scale, load, 100.0, BOUNDS) == expected


@given(st.integers(1, 12), st.floats(0, 1))
def test_the_same_load_never_asks_for_one_more_and_one_less_in_turn(target: int, work: float) -> None:
    """Work that is spread over one worker less after a step down does not lead to a step up."""
    busy = Load(work, 0.0, 0)
    down = rescale(Scale(target, low_since=0.0), busy, 100.0, BOUNDS)
    if down.target < target:
        spread = Load(min(1.0, work * target / down.target), 0.0, 0)
        assert rescale(Scale(down.target, high_since=0.0), spread, 100.0, BOUNDS).target <= down.target


@pytest.mark.parametrize(
    ("arguments", "current", "target"),
    [
        (["-w", "3"], None, 3),
        (["-w", "3"], 7, 3),
        (["-w", "3", "--workers-max", "8"], 7, 7),
        (["-w", "3", "--workers-max", "2"], None, 2),
        (["--workers-min", "2", "--workers-max", "4"], None, 2),
    ],
)
def test_a_reload_keeps_what_the_load_has_asked_for(arguments: list[str], current: int | None, target: int) -> None:
    assert first_target(load_settings([*arguments, "hello:app"], {}), current) == target


@pytest.mark.parametrize(("worker_class", "places"), [("sync", 3), ("gthread", 3), ("asgi", 50), ("gevent", 50)])
def test_a_worker_is_busy_when_its_threads_or_its_connections_are_in_use(worker_class: str, places: int) -> None:
    settings = load_settings(["--threads", "3", "--worker-connections", "50"], {})
    assert places_of(settings, worker_class) == places


def test_the_kernel_counts_the_connections_that_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        waiting = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        assert accept_queue(listener) == 3
        listener.accept()[0].close()
        assert accept_queue(listener) == 2
        for client in waiting:
            client.close()
