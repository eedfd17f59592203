"""How many workers `-w auto` means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bicorn.config import cpus


@pytest.mark.parametrize(("usable", "workers"), [(1, 3), (2, 5), (31, 63), (32, 64), (500, 64)])
def test_two_workers_a_cpu_and_one_up_to_the_bound(usable: int, workers: int) -> None:
    assert cpus.auto_workers(usable) == workers


@pytest.mark.parametrize(
    ("affinity", "quotas", "usable"),
    [(8, [], 8), (8, [2.0], 2), (8, [1.5], 2), (8, [0.1], 1), (2, [6.0], 2), (8, [4.0, 1.0, 3.0], 1)],
)
def test_the_smallest_quota_cuts_the_affinity_mask(affinity: int, quotas: list[float], usable: int) -> None:
    assert cpus.usable_cpus(affinity, quotas) == usable


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000", 0.5), ("", None), ("x y", None), ("0 100000", None)],
)
def test_the_quota_of_cgroup_v2(text: str, quota: float | None) -> None:
    assert cpus.quota_of_v2(text) == quota


@pytest.mark.parametrize(
    ("quota_us", "period_us", "quota"),
    [("-1\n", "100000\n", None), ("200000\n", "100000\n", 2.0), ("5", "0", None), ("x", "1", None)],
)
def test_the_quota_of_cgroup_v1(quota_us: str, period_us: str, quota: float | None) -> None:
    assert cpus.quota_of_v1(quota_us, period_us) == quota


def test_the_paths_of_both_hierarchies_are_found() -> None:
    text = "12:cpuset:/set\n4:cpu,cpuacct:/docker/abc\n0::/user.slice/app\n"
    assert cpus.cgroup_paths(text) == ("/user.slice/app", "/docker/abc")
    assert cpus.cgroup_paths("") == (None, None)


def write(root: Path, files: dict[str, str]) -> None:
    """Lay out a file system as the kernel would."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


HALF_OF_ONE = "50000 100000"


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": HALF_OF_ONE},
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/cpu.max": HALF_OF_ONE,
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        },
        {"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/cpu.max": HALF_OF_ONE},
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        {
            "proc/self/cgroup": "4:cpu:/a\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["v2 in a container", "v2 above this group", "v2 without a namespace", "v1 in a container", "v1"],
)
def test_a_quota_is_found_where_the_kernel_puts_it(files: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, files)
    assert cpus.read_usable_cpus(tmp_path) == 1


def test_without_cgroups_the_affinity_mask_decides(tmp_path: Path) -> None:
    assert cpus.read_usable_cpus(tmp_path) == len(os.sched_getaffinity(0))


def test_the_explanation_names_the_numbers() -> None:
    assert cpus.explain(1) == "auto: 2 x 1 usable CPU + 1, at most 64"
    assert "4 usable CPUs" in cpus.explain(4)
