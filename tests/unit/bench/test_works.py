"""The lists of the bench fit together: nothing is promised about an entrant that nobody measures."""

from __future__ import annotations

import dataclasses

import pytest

from bench.results import Round
from bench.servers import SERVERS
from bench.works import BOUNDS, TARGETS, WORKS, Bound, Target, Work

METRICS = {field.name for field in dataclasses.fields(Round)}


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_a_work_is_for_servers_that_exist_and_knows_ours(work: Work) -> None:
    assert {entrant.server for entrant in work.entrants} <= set(SERVERS)
    keys = [entrant.key for entrant in work.entrants]
    assert len(keys) == len(set(keys))
    assert SERVERS[work.own].distribution == "bicorn"
    assert work.own in {entrant.server for entrant in work.entrants}


@pytest.mark.parametrize("promise", [*TARGETS, *BOUNDS], ids=str)
def test_a_target_is_about_entrants_of_its_work(promise: Target | Bound) -> None:
    keys = {entrant.key for entrant in WORKS[promise.work].entrants}
    assert promise.of in keys
    assert promise.metric in METRICS
    if isinstance(promise, Target):
        assert promise.against
        assert set(promise.against) <= keys - {promise.of}
