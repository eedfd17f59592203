"""What the bench concludes from its rounds."""

from __future__ import annotations

import pytest

from bench import summary
from bench.latencies import percentile
from bench.machine import Machine
from bench.results import Distribution, Round, Run
from bench.summary import Spread, Verdict
from bench.works import BOUNDS, TARGETS

MACHINE = Machine("a processor", 2, 1024, "6.1", "a system", "cubic", "wrk", "0123456789ab", None, None)


def round_of(work: str, entrant: str, number: int, *, cpu_us: float, max_ms: float = 1.0) -> Round:
    return Round(
        work=work,
        entrant=entrant,
        number=number,
        requests=1000,
        seconds=1.0,
        cpu_us=cpu_us,
        rate=1000.0,
        p50_ms=0.5,
        p99_ms=0.9,
        max_ms=max_ms,
        pss_bytes=1,
        rss_bytes=2,
        errors=0,
    )


def run_of(*rounds: Round) -> Run:
    return Run("2026-01-01T00:00:00Z", "whole", 3, 2, MACHINE, rounds=list(rounds))


def test_a_ratio_is_taken_within_a_round() -> None:
    costs = {"bicorn": (10.0, 40.0, 10.0), "bjoern": (20.0, 80.0, 10.0)}
    run = run_of(
        *(round_of("hello", name, number, cpu_us=cost) for name in costs for number, cost in enumerate(costs[name], 1))
    )
    assert summary.ratio(run, "hello", "bicorn", "bjoern") == Spread(median=0.5, low=0.5, high=1.0)


def test_the_best_peer_is_the_one_of_the_lowest_median() -> None:
    run = run_of(
        round_of("asgi-hello", "bicorn-asgi", 1, cpu_us=10),
        round_of("asgi-hello", "granian-asgi", 1, cpu_us=25),
        round_of("asgi-hello", "fastpysgi-asgi", 1, cpu_us=20),
    )
    against_best = next(one for one in summary.verdicts(run) if "best of 2" in one.text)
    assert "bicorn-asgi / fastpysgi-asgi" in against_best.text
    assert against_best.measured == Spread(0.5, 0.5, 0.5)
    assert against_best.word == "hit"


def test_only_works_that_were_tried_are_judged() -> None:
    run = run_of(round_of("hello", "bicorn", 1, cpu_us=10))
    promised = [one for one in (*TARGETS, *BOUNDS) if one.work == "hello"]
    assert [one.word for one in summary.verdicts(run)] == ["not measured"] * len(promised)


@pytest.mark.parametrize(
    ("measured", "at_least", "always", "word"),
    [
        (Spread(50, 40, 60), False, False, "hit"),
        (Spread(50, 40, 60), False, True, "miss"),
        (Spread(51, 40, 60), False, False, "miss"),
        (Spread(50, 40, 60), True, False, "hit"),
        (Spread(50, 40, 60), True, True, "miss"),
        (Spread(49, 40, 60), True, False, "miss"),
        (None, False, False, "not measured"),
    ],
)
def test_a_verdict_looks_at_the_median_or_at_every_round(
    measured: Spread | None, at_least: bool, always: bool, word: str
) -> None:
    assert Verdict("it", 50, measured, " ms", at_least, always).word == word


def test_what_must_always_hold_is_judged_by_its_worst_round() -> None:
    slowest = (10.0, 51.0, 10.0)
    run = run_of(*(round_of("balance", "bicorn", n, cpu_us=1, max_ms=ms) for n, ms in enumerate(slowest, 1)))
    verdict = next(one for one in summary.verdicts(run) if one.text == "balance: the slowest quick request, bicorn")
    assert verdict.word == "miss"


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_a_latency_that_was_measured(percent: int, expected: int) -> None:
    assert percentile(range(1, 101), percent) == expected
    assert percentile([7], percent) == 7


def test_shares_are_judged_on_both_sides() -> None:
    run = run_of()
    run.distributions.append(Distribution("bicorn", 4, 10_000, 16, [2900, 2700, 2500, 1900]))
    run.distributions.append(Distribution("gunicorn-sync", 4, 10_000, 16, [9997, 1, 1, 1]))
    assert [(one.limit, one.word) for one in summary.verdicts(run)] == [(1.20, "hit"), (0.80, "miss")]
