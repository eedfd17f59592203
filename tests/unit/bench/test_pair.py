"""Two servers in bursts by turns: which ones are meant, and what their ratios say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import pair
from bench.servers import SERVERS, Order


def test_a_server_is_named_alone_or_with_the_checkout_that_it_runs_from(tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert pair.server("bjoern") is SERVERS["bjoern"]
    elsewhere = pair.server(f"bicorn-gthread@{tmp_path}")
    here, there = SERVERS["bicorn-gthread"].command(Order("a:b")), elsewhere.command(Order("a:b"))
    assert there == [str(python), *here[1:]]


@pytest.mark.parametrize("text", ["unknown", "bicorn@{}", "bjoern@{}"])
def test_what_is_not_there_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="bench: "):
        pair.server(text.format(tmp_path))


def test_the_bounds_of_a_median_close_in_on_it_with_more_ratios() -> None:
    few = pair.median_with_bounds([0.9, 1.1, 1.0])
    many = pair.median_with_bounds([0.8 + number / 1000 for number in range(401)])
    assert few == (0.9, 1.0, 1.1)
    assert many == pytest.approx((0.98, 1.0, 1.02))
