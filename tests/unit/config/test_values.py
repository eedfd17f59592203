"""The kinds of plain values; the comparison with Gunicorn's is in tests/compat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bicorn.config import cpus, values
from bicorn.config.kind import Invalid, Kind


@pytest.mark.parametrize(("raw", "seconds"), [(0, 0), (2, 2), (0.25, 0.25), ("1.5", 1.5), ("3", 3.0)])
def test_a_duration_may_have_a_fraction(raw: object, seconds: float) -> None:
    assert values.SECONDS.parse(raw) == seconds


@pytest.mark.parametrize("raw", [-1, "-0.1", "soon", None, float("nan"), float("inf"), "inf", [1]])
def test_a_duration_is_a_finite_number_from_zero(raw: object) -> None:
    with pytest.raises(Invalid):
        values.SECONDS.parse(raw)


def test_an_automatic_worker_count_says_what_it_was_made_of() -> None:
    usable = cpus.read_usable_cpus()
    assert values.WORKERS.parse("auto") == cpus.auto_workers(usable)
    assert str(usable) in str(values.WORKERS.annotate(" Auto "))
    assert values.WORKERS.annotate(3) is None


@pytest.mark.parametrize(("text", "mode"), [("022", 0o22), ("0o22", 0o22), ("0x12", 0x12), ("18", 18), ("0", 0)])
def test_a_mode_on_the_command_line_is_octal_when_it_begins_with_zero(text: str, mode: int) -> None:
    assert values.FILE_MODE.from_text(text) == mode


@pytest.mark.parametrize("kind", [values.USER, values.GROUP])
def test_users_and_groups_go_by_name_or_number(kind: Kind[int]) -> None:
    assert kind.parse("root") == kind.parse("0") == kind.parse(0) == 0
    with pytest.raises(Invalid, match="there is no such"):
        kind.parse("no such name")
    with pytest.raises(Invalid):
        kind.parse(1.5)


def test_a_watched_pattern_that_matches_nothing_is_remarked_on(tmp_path: Path) -> None:
    (tmp_path / "a.html").touch()
    missing, there = f"{tmp_path}/*.css", f"{tmp_path}/*.html"
    assert values.WATCHED_FILES.parse([missing, there]) == [missing, there]
    assert values.WATCHED_FILES.annotate([missing, there]) == f"matches no file yet: {missing}"
    assert values.WATCHED_FILES.annotate([there]) is None
    with pytest.raises(Invalid, match="does not exist"):
        values.WATCHED_FILES.parse(f"{tmp_path}/b.html")


def test_a_network_with_host_bits_is_refused_with_the_reason() -> None:
    with pytest.raises(Invalid, match="host bits"):
        values.NETWORKS.parse("10.0.0.1/8")


def test_the_working_directory_keeps_the_name_the_shell_has_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path / "current")
    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    assert values.current_directory() == str(tmp_path / "current")
    assert values.DIRECTORY.parse("..") == str(tmp_path)
    monkeypatch.setenv("PWD", "/")
    assert values.current_directory() == os.path.realpath(tmp_path / "release")
    monkeypatch.delenv("PWD")
    assert values.current_directory() == os.path.realpath(tmp_path / "release")


def test_statsd_addresses_keep_their_old_reading_of_unix() -> None:
    assert values.STATSD_HOST.parse("unix:8125") == ("unix", 8125)
    assert values.STATSD_HOST.parse("metrics") == ("metrics", 8125)
    assert values.STATSD_HOST.parse("unix:///run/statsd") == "/run/statsd"
