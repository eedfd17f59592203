"""Lines about things that happen too often for a line each time."""

from __future__ import annotations

from bicorn.observe.tally import Tally


def test_the_first_of_many_is_told_at_once_and_the_others_are_counted() -> None:
    tally = Tally(3600)
    assert [tally.add() for _ in range(3)] == [1, 0, 0]


def test_what_was_not_told_is_in_the_next_number() -> None:
    tally = Tally(3600)
    tally.add()
    tally.add()
    tally._interval_s = 0
    assert [tally.add(), tally.add()] == [2, 1]
