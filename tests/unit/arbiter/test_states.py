"""The table of a worker's life, every pair of it."""

from __future__ import annotations

import pytest

from bicorn.arbiter.states import TRANSITIONS, IllegalTransition, WorkerEvent, WorkerState, advance

EVERY_PAIR = [(state, event) for state in WorkerState for event in WorkerEvent]


@pytest.mark.parametrize(("state", "event"), EVERY_PAIR)
def test_every_pair_is_in_the_table_or_refused(state: WorkerState, event: WorkerEvent) -> None:
    if event in TRANSITIONS[state]:
        assert advance(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=f"{state.value} cannot be {event.value}"):
            advance(state, event)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(WorkerState)


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.REAPED])
def test_every_living_worker_can_exit_and_may_be_heard(state: WorkerState) -> None:
    assert advance(state, WorkerEvent.EXITED) is WorkerState.REAPED
    advance(state, WorkerEvent.SAID_READY)


def test_nothing_happens_to_the_dead() -> None:
    assert not TRANSITIONS[WorkerState.REAPED]


def test_only_booting_workers_become_ready() -> None:
    become_ready = [
        state
        for state, row in TRANSITIONS.items()
        if WorkerState.READY in row.values() and state is not WorkerState.READY
    ]
    assert become_ready == [WorkerState.BOOTING]
