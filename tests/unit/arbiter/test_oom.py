"""Where the kernel's count of kills for memory is found, and what it explains."""

from __future__ import annotations

from pathlib import Path

import pytest

from bicorn.arbiter.exits import Oom
from bicorn.arbiter.oom import OomKills

#: How the membership is written, where the counter stands below the mount, and where the limit.
PLACES = [
    ("0::/app.slice/web.service\n", "app.slice/web.service/memory.events", "memory.max"),
    ("0::/\n", "memory.events", "memory.max"),
    ("0::/not/there/in/a/container\n", "memory.events", "memory.max"),
    ("0::/web\n4:memory:/x\n", "unified/web/memory.events", "memory.max"),
    ("4:memory:/docker/1f\n0::/\n", "memory/docker/1f/memory.oom_control", "memory.limit_in_bytes"),
    ("4:cpu,memory:/docker/1f\n", "memory/memory.oom_control", "memory.limit_in_bytes"),
]


def write(mount: Path, counter: str, kills: int, limit: tuple[str, str] | None = None) -> None:
    file = mount / counter
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"low 0\nunder_oom 0\noom 9\noom_kill {kills}\n")
    if limit is not None:
        (file.parent / limit[0]).write_text(f"{limit[1]}\n")


@pytest.mark.parametrize(("membership", "counter", "limit"), PLACES)
def test_the_counter_is_found(tmp_path: Path, membership: str, counter: str, limit: str) -> None:
    write(tmp_path, counter, 3, (limit, str(512 * 2**20)))
    kills = OomKills(tmp_path, membership)
    assert kills.explain_one() == Oom(False)
    write(tmp_path, counter, 4)
    assert kills.explain_one() == Oom(True, "the limit of its cgroup is 512 MiB")


def test_each_kill_explains_one_death(tmp_path: Path) -> None:
    write(tmp_path, "memory.events", 0, ("memory.max", "max"))
    kills = OomKills(tmp_path, "0::/")
    write(tmp_path, "memory.events", 2)
    assert [kills.explain_one() for _ in range(3)] == [Oom(True), Oom(True), Oom(False)]


@pytest.mark.parametrize("membership", ["", "0::/", "4:memory:/", "0::/../../etc"])
def test_without_a_counter_nobody_is_accused(tmp_path: Path, membership: str) -> None:
    assert OomKills(tmp_path, membership).explain_one() == Oom(None)


def test_a_limit_that_is_none_is_not_told(tmp_path: Path) -> None:
    write(tmp_path, "memory/memory.oom_control", 0, ("memory.limit_in_bytes", "9223372036854771712"))
    kills = OomKills(tmp_path, "4:memory:/")
    write(tmp_path, "memory/memory.oom_control", 1)
    assert kills.explain_one() == Oom(True)
