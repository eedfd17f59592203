"""The registry of workers and their slots, on a real scoreboard."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bicorn._core import Scoreboard
from bicorn.app.application import Application
from bicorn.arbiter.children import Children
from bicorn.arbiter.handle import WorkerHandle
from bicorn.arbiter.states import WorkerEvent, WorkerState
from bicorn.config import load_settings
from bicorn.ipc.scoreboard import SlotState
from bicorn.observe.log import Logger
from bicorn.workers.base import Worker


@pytest.fixture
def children() -> Children:
    """A registry with room for three."""
    return Children(Scoreboard(3))


def add(children: Children, pid: int, *, age: int) -> WorkerHandle:
    """Record a worker that was never forked."""
    settings = load_settings(["hello:app"], {})
    worker = Worker(age, 1, [], Application(settings), 15.0, settings, Logger(settings))
    handle = WorkerHandle(pid, worker, children.take_slot(), 1, forked_at=100.0, since=100.0)
    children.add(handle)
    return handle


def test_slots_are_given_from_the_front_and_taken_back(children: Children) -> None:
    first, second = add(children, 11, age=1), add(children, 12, age=2)
    assert (first.slot.index, second.slot.index, children.slots_free) == (0, 1, 1)
    assert children.remove(11) is first
    assert children.slots_free == 2
    assert add(children, 13, age=3).slot.index == 0


def test_a_slot_is_clean_when_it_is_given_again(children: Children) -> None:
    handle = add(children, 11, age=1)
    handle.slot.beat()
    handle.slot.pid = 11
    children.remove(11)
    slot = children.take_slot()
    assert (slot.index, slot.heartbeat_ns, slot.pid) == (handle.slot.index, 0, 0)


def test_a_look_at_the_siblings_touches_the_slots_that_were_taken_only() -> None:
    board = Scoreboard(65_536)
    slot = board.slot(0)
    slot.take()
    board.slot(2).take()
    board.slot(2).state = SlotState.READY
    before = shared_bytes()
    board.slot(2).take_over(1)
    assert slot.has_sibling(SlotState.READY)
    assert slot.siblings(SlotState.READY) == (0, 0), "it has shown no sign of life yet"
    board.slot(2).beat()
    assert slot.siblings(SlotState.READY) == (1, 0)
    assert slot.siblings(SlotState.DRAINING) == (0, 0)
    assert shared_bytes() - before < 100_000  # Of 70 MB.


def shared_bytes() -> int:
    """How much shared memory is in this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssShmem:"))
    return int(line.split()[1]) * 1024


def test_strangers_are_nobody(children: Children) -> None:
    assert children.find(99) is None
    assert children.remove(99) is None


def test_the_oldest_comes_first(children: Children) -> None:
    add(children, 30, age=1)
    add(children, 10, age=2)
    assert [view.pid for view in children.views()] == [30, 10]


def test_the_last_sign_of_life_is_the_latest_of_fork_beat_and_excuse(children: Children) -> None:
    handle = add(children, 11, age=1)
    assert handle.view().heartbeat == 100.0
    children.excuse(250.0)
    assert handle.view().heartbeat == 250.0
    before = time.monotonic()
    handle.slot.beat()
    assert before <= handle.view().heartbeat <= time.monotonic()


def test_a_sign_of_life_is_excused_once(children: Children) -> None:
    handle = add(children, 11, age=1)
    for now in (250.0, 300.0):
        children.excuse(now)
    assert handle.view().heartbeat == 250.0
    handle.slot.beat()
    later = time.monotonic() + 100
    children.excuse(later)
    assert handle.view().heartbeat == later


def test_since_is_when_the_state_was_entered(children: Children) -> None:
    handle = add(children, 11, age=1)
    handle.advance(WorkerEvent.SAID_READY, 110.0)
    handle.advance(WorkerEvent.SAID_READY, 120.0)
    assert (handle.state, handle.since, handle.ready_at) == (WorkerState.READY, 110.0, 110.0)
    handle.advance(WorkerEvent.TOLD_TO_DRAIN, 130.0)
    assert (handle.state, handle.since, handle.ready_at) == (WorkerState.DRAINING, 130.0, 110.0)
