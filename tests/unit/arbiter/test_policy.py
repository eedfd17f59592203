"""Snapshots and the decisions that they ask for, as tables."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bicorn.arbiter.policy import (
    ABORT_GRACE_S,
    KILLED_GRACE_S,
    Abort,
    AbortTemplate,
    Action,
    Backoff,
    Commit,
    Decision,
    Drain,
    Kill,
    Phase,
    Quit,
    Snapshot,
    Spawn,
    StartTemplate,
    TemplateState,
    TemplateView,
    WorkerView,
    backoff_after_death,
    decide,
)
from bicorn.arbiter.states import WorkerEvent, WorkerState, advance

NOW = 1000.0
DELAY_MAX_S = 30.0
BOOTING, READY, DRAINING = WorkerState.BOOTING, WorkerState.READY, WorkerState.DRAINING
QUITTING, ABORTED, KILLED = WorkerState.QUITTING, WorkerState.ABORTED, WorkerState.KILLED


def worker(
    pid: int,
    state: WorkerState = READY,
    *,
    generation: int = 1,
    silent: float = 0.0,
    since: float = 0.0,
    is_due: bool = False,
    was_aborted: bool = False,
) -> WorkerView:
    """A worker that entered its state `since` seconds ago and was heard `silent` seconds ago; its age is its pid."""
    return WorkerView(pid, pid, generation, state, NOW - since, NOW - silent, is_due, was_aborted)


RUNNING = Snapshot(
    now=NOW,
    phase=Phase.RUNNING,
    target=2,
    generation=1,
    fallback=None,
    proven=True,
    workers=(),
    slots_free=100,
    spawn_not_before=0.0,
    timeout=30.0,
    graceful_timeout=10.0,
)


def situation(*workers: WorkerView, **changes: object) -> Snapshot:
    """RUNNING with these workers and these changes."""
    return dataclasses.replace(RUNNING, workers=workers, **changes)  # type: ignore[arg-type]  # names are checked there


def reload(*workers: WorkerView, **changes: object) -> Snapshot:
    """A reload from generation 1, which had two workers, to generation 2."""
    beginning = {"generation": 2, "fallback": 1, "fallback_target": 2, "proven": False}
    return situation(*workers, **{**beginning, **changes})


def rolling(*workers: WorkerView, **changes: object) -> Snapshot:
    """The same, one by one."""
    return reload(*workers, rolling=True, **changes)


TABLE: dict[str, tuple[Snapshot, list[Action]]] = {
    "nobody lives": (situation(), [Spawn(1), Spawn(1)]),
    "one is missing": (situation(worker(1)), [Spawn(1)]),
    "all is well": (situation(worker(1), worker(2)), []),
    "booting ones count": (situation(worker(1), worker(2, BOOTING)), []),
    "draining ones do not": (situation(worker(1), worker(2, DRAINING)), [Spawn(1)]),
    "nor do those that were killed for draining too long": (situation(worker(1), worker(2, KILLED)), [Spawn(1)]),
    "aborted ones keep their place for a moment": (situation(worker(1), worker(2, ABORTED)), []),
    "aborted ones of another generation have none": (
        situation(worker(1), worker(2, ABORTED, generation=2)),
        [Spawn(1)],
    ),
    "back-off holds the spawn": (situation(worker(1), spawn_not_before=NOW + 1), []),
    "back-off is over": (situation(worker(1), spawn_not_before=NOW), [Spawn(1)]),
    "slots are out": (situation(slots_free=1), [Spawn(1)]),
    "no slot at all": (situation(slots_free=0), []),
    "one too many: the oldest goes": (situation(worker(1), worker(2), worker(3)), [Drain(1)]),
    "one too many: rather the one that is not ready": (
        situation(worker(1), worker(2), worker(3, BOOTING)),
        [Drain(3)],
    ),
    "none wanted": (situation(worker(1), worker(2), target=0), [Drain(1), Drain(2)]),
    # proof
    "the first generation is proven": (situation(worker(1), worker(2), proven=False), [Commit()]),
    "not all are ready yet": (situation(worker(1), worker(2, BOOTING), proven=False), []),
    "a generation of nobody is proven at once": (situation(target=0, proven=False), [Commit()]),
    # reload
    "a reload tries one worker first": (reload(worker(1), worker(2)), [Spawn(2)]),
    "the old ones stay while it boots": (reload(worker(1), worker(2), worker(3, BOOTING, generation=2)), []),
    "when it lives the others follow": (reload(worker(1), worker(2), worker(3, generation=2)), [Spawn(2)]),
    "the old ones stay until all are ready": (
        reload(worker(1), worker(2), worker(3, generation=2), worker(4, BOOTING, generation=2)),
        [],
    ),
    "all new ones are ready": (reload(worker(1), worker(2, generation=2), target=1), [Commit()]),
    "after the commit the old ones drain": (
        situation(worker(1), worker(2, BOOTING), worker(3, generation=2), target=1, generation=2),
        [Drain(1), Drain(2)],
    ),
    "a reload that was given up": (
        situation(worker(1), worker(2, BOOTING, generation=2), target=1),
        [Drain(2)],
    ),
    "a reload that was overtaken": (
        reload(worker(1), worker(2, BOOTING, generation=2), target=1, generation=3, fallback_target=1),
        [Drain(2), Spawn(3)],
    ),
    "a dead old one is replaced while nothing is known of the new ones": (
        reload(worker(2), worker(3, BOOTING, generation=2)),
        [Spawn(1)],
    ),
    "a dead old one is not replaced when a new one lives": (
        reload(worker(2), worker(3, generation=2), worker(4, BOOTING, generation=2)),
        [],
    ),
    "a reload in back-off": (reload(worker(1), worker(2), spawn_not_before=NOW + 1), []),
    # rolling reload
    "rolling: one more than before": (rolling(worker(1), worker(2)), [Spawn(2)]),
    "rolling: a successor from before has to make room": (
        rolling(worker(1), worker(2, is_due=True), worker(3)),
        [Drain(2)],
    ),
    "rolling: not while somebody drains from before": (rolling(worker(1), worker(2), worker(3, DRAINING)), []),
    "rolling: a new one is ready, an old one drains": (
        rolling(worker(1), worker(2), worker(3, generation=2)),
        [Drain(1)],
    ),
    "rolling: what drains is in memory": (rolling(worker(1, DRAINING), worker(2), worker(3, generation=2)), []),
    "rolling: the next one": (rolling(worker(2), worker(3, generation=2)), [Spawn(2)]),
    "rolling: all are there": (
        rolling(worker(2, DRAINING), worker(3, generation=2), worker(4, generation=2)),
        [Commit()],
    ),
    "rolling to fewer": (
        rolling(worker(1), worker(2), worker(3), worker(4, generation=2), fallback_target=3),
        [Drain(1), Drain(2)],
    ),
    "rolling to more": (
        rolling(worker(1), worker(2), worker(3, generation=2), target=4),
        [Spawn(2), Spawn(2)],
    ),
    # recycling
    "a due worker gets a successor": (situation(worker(1, is_due=True), worker(2)), [Spawn(1)]),
    "it serves until that is ready": (situation(worker(1, is_due=True), worker(2), worker(3, BOOTING)), []),
    "then it drains": (situation(worker(1, is_due=True), worker(2), worker(3)), [Drain(1)]),
    "not all at once": (situation(worker(1, is_due=True), worker(2, is_due=True)), [Spawn(1)]),
    "the next one is due": (
        situation(worker(1, DRAINING, is_due=True), worker(2, is_due=True), worker(3)),
        [Spawn(1)],
    ),
    "of many, a quarter": (situation(*(worker(pid, is_due=True) for pid in range(1, 9)), target=8), [Spawn(1)] * 2),
    "a due worker goes first when there are too many": (
        situation(worker(1), worker(2), worker(3, is_due=True)),
        [Drain(3)],
    ),
    "nobody is recycled during a reload": (reload(worker(1, is_due=True), worker(2)), [Spawn(2)]),
    # templates
    "the application is loaded before workers are forked": (
        situation(templates=(TemplateView(1, TemplateState.MISSING),)),
        [StartTemplate(1)],
    ),
    "nothing is forked from a template that loads": (
        situation(templates=(TemplateView(1, TemplateState.BOOTING),)),
        [],
    ),
    "workers are forked from the template": (
        situation(templates=(TemplateView(1, TemplateState.READY),)),
        [Spawn(1), Spawn(1)],
    ),
    "a template that loads for too long": (
        situation(templates=(TemplateView(1, TemplateState.BOOTING, NOW - 5),), boot_timeout=5.0),
        [AbortTemplate(1)],
    ),
    "a reload has a template of its own": (
        reload(worker(1), worker(2), templates=(TemplateView(2, TemplateState.MISSING),)),
        [StartTemplate(2)],
    ),
    # heartbeats
    "silent for long enough": (situation(worker(1), worker(2, silent=30)), [Abort(2, 30.0)]),
    "silent for nearly long enough": (situation(worker(1), worker(2, silent=29.9)), []),
    "nobody watches": (situation(worker(1), worker(2, silent=999), timeout=0.0), []),
    "silent while booting": (situation(worker(1), worker(2, BOOTING, silent=31)), [Abort(2, 31.0)]),
    "booting for too long": (
        situation(worker(1), worker(2, BOOTING, since=5, silent=5), boot_timeout=5.0),
        [Abort(2, 5.0)],
    ),
    "booting for long, but allowed to": (
        situation(worker(1), worker(2, BOOTING, since=59, silent=59), boot_timeout=60.0),
        [],
    ),
    "the abort has its grace": (situation(worker(1), worker(2), worker(3, ABORTED, silent=31, since=0.9)), []),
    "the abort's grace is over": (situation(worker(1), worker(2), worker(3, ABORTED, since=1)), [Kill(3)]),
    "it keeps its place while it is killed": (situation(worker(1), worker(2, ABORTED, since=1)), [Kill(2)]),
    "and until the kernel gives it back": (
        situation(worker(1), worker(2, KILLED, since=KILLED_GRACE_S - 0.1, was_aborted=True)),
        [],
    ),
    "but not for ever, if it hangs in the kernel": (
        situation(worker(1), worker(2, KILLED, since=KILLED_GRACE_S, was_aborted=True)),
        [Spawn(1)],
    ),
    "a killed one has no place in another generation": (
        situation(worker(1), worker(2, KILLED, generation=2, was_aborted=True)),
        [Spawn(1)],
    ),
    "a killed one is left to the kernel": (situation(worker(1), worker(2), worker(3, KILLED, since=99)), []),
    "draining may be silent": (situation(worker(1), worker(2), worker(3, DRAINING, silent=99, since=9)), []),
    "draining took too long": (situation(worker(1), worker(2), worker(3, DRAINING, since=10)), [Kill(3)]),
    # stopping
    "a graceful stop": (
        situation(worker(1), worker(2, BOOTING), worker(3, DRAINING), phase=Phase.DRAINING, stop_deadline=NOW + 5),
        [Drain(1), Drain(2)],
    ),
    "a quick stop": (
        situation(
            worker(1), worker(2, DRAINING), worker(3, QUITTING), worker(4, ABORTED), worker(5, KILLED),
            phase=Phase.QUITTING, stop_deadline=NOW + 5,
        ),
        [Quit(1), Quit(2)],
    ),
    "the stop's deadline": (
        situation(
            worker(1, DRAINING), worker(2, QUITTING), worker(3, KILLED), phase=Phase.DRAINING, stop_deadline=NOW
        ),
        [Kill(1), Kill(2)],
    ),
    "an earlier drain gets the stop's deadline": (
        situation(worker(1, DRAINING, since=10), phase=Phase.DRAINING, stop_deadline=NOW + 5),
        [],
    ),
    "nobody is spawned during a stop": (situation(phase=Phase.DRAINING, stop_deadline=NOW + 5), []),
}  # fmt: skip


@pytest.mark.parametrize(("snapshot", "actions"), TABLE.values(), ids=TABLE.keys())
def test_what_a_situation_asks_for(snapshot: Snapshot, actions: list[Action]) -> None:
    assert list(decide(snapshot).actions) == actions


WAKING: dict[str, tuple[Snapshot, float | None]] = {
    "nobody watches": (situation(worker(1), worker(2), timeout=0.0), None),
    "the next heartbeat that could be missed": (situation(worker(1, silent=3), worker(2, silent=5)), NOW + 25),
    "an abort's grace": (situation(worker(1), worker(2), worker(3, ABORTED, since=0.4)), NOW + 0.6),
    "a drain": (situation(worker(1), worker(2), worker(3, DRAINING, since=4)), NOW + 6),
    "back-off": (situation(worker(1), spawn_not_before=NOW + 2), NOW + 2),
    "a kill after an abort": (
        situation(worker(1), worker(2, KILLED, since=0.5, was_aborted=True)),
        NOW + KILLED_GRACE_S - 0.5,
    ),
    "a kill after an abort that was long ago": (
        situation(worker(1), worker(2), worker(3, KILLED, since=99, was_aborted=True), timeout=0.0),
        None,
    ),
    "a kill after a drain": (situation(worker(1), worker(2), worker(3, KILLED), timeout=0.0), None),
    "a stop": (situation(worker(1, DRAINING), phase=Phase.DRAINING, stop_deadline=NOW + 7), NOW + 7),
}


@pytest.mark.parametrize(("snapshot", "wake_at"), WAKING.values(), ids=WAKING.keys())
def test_when_to_look_again(snapshot: Snapshot, wake_at: float | None) -> None:
    assert decide(snapshot).wake_at == (None if wake_at is None else pytest.approx(wake_at))


VIEWS = st.builds(
    WorkerView,
    pid=st.integers(1, 9),
    age=st.integers(1, 9),
    generation=st.integers(1, 3),
    state=st.sampled_from([state for state in WorkerState if state is not WorkerState.REAPED]),
    since=st.floats(NOW - 60, NOW),
    heartbeat=st.floats(NOW - 60, NOW),
    is_due=st.booleans(),
    was_aborted=st.booleans(),
)
SNAPSHOTS = st.builds(
    Snapshot,
    now=st.just(NOW),
    phase=st.sampled_from(Phase),
    target=st.integers(0, 5),
    generation=st.integers(2, 3),
    fallback=st.none() | st.just(1),
    proven=st.booleans(),
    workers=st.lists(VIEWS, max_size=8, unique_by=lambda view: view.pid).map(tuple),
    slots_free=st.integers(0, 8),
    spawn_not_before=st.floats(NOW - 5, NOW + 5),
    timeout=st.sampled_from([0.0, 1.0, 30.0]),
    graceful_timeout=st.sampled_from([0.0, 1.0, 30.0]),
    stop_deadline=st.none() | st.floats(NOW - 5, NOW + 5),
    fallback_target=st.integers(0, 5),
    rolling=st.booleans(),
    boot_timeout=st.sampled_from([0.0, 5.0]),
    templates=st.just(())
    | st.builds(TemplateView, st.integers(1, 3), st.sampled_from(TemplateState), st.floats(NOW - 60, NOW)).map(
        lambda view: (view,)
    ),
)
EVENTS = {
    Drain: WorkerEvent.TOLD_TO_DRAIN,
    Quit: WorkerEvent.TOLD_TO_QUIT,
    Abort: WorkerEvent.HEARTBEAT_MISSED,
    Kill: WorkerEvent.KILL_SENT,
}


@given(SNAPSHOTS)
def test_a_decision_is_legal_whatever_the_situation(snapshot: Snapshot) -> None:
    decision = decide(snapshot)
    states = {view.pid: view.state for view in snapshot.workers}
    told = [action for action in decision.actions if isinstance(action, (Drain, Quit, Abort, Kill))]
    for action in told:
        advance(states[action.pid], EVENTS[type(action)])  # raises if it is not
    assert len({action.pid for action in told}) == len(told), "one worker is told one thing at a time"
    assert sum(isinstance(action, Spawn) for action in decision.actions) <= snapshot.slots_free
    assert decision.wake_at is None or decision.wake_at > snapshot.now


@given(SNAPSHOTS)
def test_acting_settles(snapshot: Snapshot) -> None:
    """Doing what was decided leads to a situation that asks for nothing more at the same moment."""
    pids = itertools.count(100)
    for _ in range(10):
        decision = decide(snapshot)
        if not decision.actions:
            return
        snapshot = after(snapshot, decision, pids)
    pytest.fail(f"it never settles: {decision.actions}")


def after(snapshot: Snapshot, decision: Decision, pids: itertools.count[int]) -> Snapshot:
    """Give the snapshot that acting on the decision leads to, with no time gone by."""
    workers = {view.pid: view for view in snapshot.workers}
    for action in decision.actions:
        if isinstance(action, Spawn):
            pid = next(pids)
            workers[pid] = WorkerView(pid, pid, action.generation, BOOTING, NOW, NOW)
            snapshot = dataclasses.replace(snapshot, slots_free=snapshot.slots_free - 1)
        elif isinstance(action, Commit):
            snapshot = dataclasses.replace(snapshot, proven=True, fallback=None)
        elif isinstance(action, (StartTemplate, AbortTemplate)):
            state = TemplateState.BOOTING if isinstance(action, StartTemplate) else TemplateState.ENDING
            snapshot = dataclasses.replace(snapshot, templates=(TemplateView(action.generation, state, NOW),))
        else:
            view = workers[action.pid]
            moved = advance(view.state, EVENTS[type(action)])
            was_aborted = view.was_aborted or isinstance(action, Abort)
            workers[action.pid] = dataclasses.replace(view, state=moved, since=NOW, was_aborted=was_aborted)
    return dataclasses.replace(snapshot, workers=tuple(workers.values()))


def test_the_first_early_death_is_free_and_the_next_ones_wait_longer() -> None:
    backoff, delays = Backoff(), []
    for _ in range(12):
        backoff = backoff_after_death(backoff, NOW, ready_for=None, delay_max=DELAY_MAX_S)
        delays.append(backoff.not_before - NOW)
    assert delays[:7] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert set(delays[7:]) == {DELAY_MAX_S}


@pytest.mark.parametrize(("ready_for", "deaths"), [(None, 4), (0.9, 4), (1.0, 0), (99.0, 0)])
def test_a_worker_that_served_for_a_while_ends_the_back_off(ready_for: float | None, deaths: int) -> None:
    assert backoff_after_death(Backoff(3, NOW), NOW, ready_for=ready_for, delay_max=DELAY_MAX_S).deaths == deaths


def test_a_thousand_deaths_are_still_a_number() -> None:
    backoff = backoff_after_death(Backoff(100_000, NOW), NOW, ready_for=None, delay_max=DELAY_MAX_S)
    assert backoff.not_before == NOW + DELAY_MAX_S


def test_the_grace_after_an_abort_is_shorter_than_any_timeout_that_can_be_set() -> None:
    assert ABORT_GRACE_S <= 1
