"""Where a request's time goes: perf for the whole picture, callgrind for exact instruction counts.

Owns       the command lines of perf and valgrind, and which process they look at.
Never      takes part in a comparison: both slow the server down.

perf samples by the CPU clock, because virtual machines often have no hardware counters. It sees the
kernel, where most of a hello is spent. callgrind sees only user space but counts every instruction:
two counts of the same code differ by an instruction or two, on the busiest machine, so it can judge a
change that no stopwatch can.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import connections, load, process_tree
from bench.machine import Cores
from bench.running import RunningServer
from bench.servers import Order, Server
from bench.works import Work

if TYPE_CHECKING:
    from typing_extensions import Self

SAMPLES_PER_SECOND: Final = 1999
SYMBOLS_SHOWN: Final = 45

# A server under valgrind is tens of times slower; this many requests still end within seconds.
_COUNTED_REQUESTS: Final = 2_000
_WARM_UP_REQUESTS: Final = 500


def sample(server: Server, work: Work, seconds: int, cores: Cores) -> str:
    """The symbols that the busiest process of the server spends its time in under load."""
    order = Order(work.app, workers=work.workers)
    with (
        RunningServer(server, order, work.request(), cpu=cores.server) as running,
        _folder() as folder,
    ):
        with _Busiest(running.pid) as busiest:
            load.run(work.load, running.order.port, seconds=1, cpu=cores.load)
        data = folder / "perf.data"
        record = ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", str(SAMPLES_PER_SECOND)]
        record += ["--pid", str(busiest.pid), "--output", str(data), "--", "sleep", str(seconds)]
        recorder = subprocess.Popen(record, stdin=subprocess.DEVNULL)
        try:
            load.run(work.load, running.order.port, seconds=seconds, cpu=cores.load)
        finally:
            recorder.wait()
        return _top_symbols(data)


def count_instructions(server: Server, work: Work, cores: Cores) -> str:
    """User-space instructions a request, and the functions that they are in."""
    with _folder() as folder:
        traced = _under_callgrind(server, folder)
        with RunningServer(traced, Order(work.app), work.request(), cpu=cores.server) as running:
            with _Busiest(running.pid) as busiest:
                _exchange(running.order.port, _WARM_UP_REQUESTS)
            pid = busiest.pid
            _callgrind_control(pid, "--instr=on")
            _exchange(running.order.port, _COUNTED_REQUESTS)
            _callgrind_control(pid, "--instr=off")
            _callgrind_control(pid, "--dump")
            # The first dump; the file without a number is what valgrind writes when the process ends.
            return _annotated(folder / f"callgrind.out.{pid}.1")


def is_countable(work: Work) -> bool:
    """Whether its exchange is a plain request without a body, one after another."""
    return work.load == load.PLAIN and work.has_length


def _top_symbols(data: Path) -> str:
    libraries = _perf_report(data, "dso")[:8]
    symbols = _perf_report(data, "dso,symbol")[:SYMBOLS_SHOWN]
    return "\n".join([*libraries, "", *symbols])


def _perf_report(data: Path, sort: str) -> list[str]:
    report = [
        "perf",
        "report",
        "--input",
        str(data),
        "--stdio",
        "--no-children",
        "--sort",
        sort,
    ]
    done = subprocess.run(report, capture_output=True, text=True, check=True)
    # perf prints two empty columns ("-  -") for the inlining it was not asked about.
    return [line.rstrip(" -") for line in done.stdout.splitlines() if line.strip() and line[0] != "#"]


def _under_callgrind(server: Server, folder: Path) -> Server:
    # Without random hashes dictionaries collide in the same places in every run.
    valgrind = [_found("env"), "PYTHONHASHSEED=0"]
    valgrind += [
        _found("valgrind"),
        "--tool=callgrind",
        "--quiet",
        "--instr-atstart=no",
        "--trace-children=yes",
    ]
    valgrind += [f"--callgrind-out-file={folder}/callgrind.out.%p"]

    def command(order: Order) -> list[str]:
        return [*valgrind, *server.command(order)]

    return Server(server.name, server.distribution, server.python, command, server.about)


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise SystemExit(f"bench: {program} is not installed; `apt-get install {program}`")
    return path


def _exchange(port: int, count: int) -> None:
    """Requests one after another on one connection, so that the count of work is exact."""
    with connections.KeepAliveClient(port) as client:
        for _ in range(count):
            client.exchange()


def _callgrind_control(pid: int, order: str) -> None:
    subprocess.run(["callgrind_control", order, str(pid)], check=True, capture_output=True)


def _annotated(dump: Path) -> str:
    annotate = ["callgrind_annotate", "--show-percs=yes", str(dump)]
    done = subprocess.run(annotate, capture_output=True, text=True, check=True)
    # "1,234 ( 5.67%)  path/file.c:function [path/library.so]", the whole program's line first.
    found = re.findall(
        r"^\s*([\d,]+) \(\s*([\d.]+)%\)  (?:PROGRAM |\S*?:)(\S+)(?: \[(?:\S*/)?(\S+)\])?",
        done.stdout,
        re.MULTILINE,
    )
    if not found:
        raise SystemExit(f"bench: callgrind counted nothing: {done.stderr.strip()[-200:]}")
    lines = []
    for count, part, function, library in found[1 : SYMBOLS_SHOWN + 1]:
        lines.append(f"{_per_request(count):9,.0f}  {part:>5}%  {function}  {library}")
    head = f"{_per_request(found[0][0]):,.0f} user-space instructions a request"
    return "\n".join([head, "", *lines])


def _per_request(count: str) -> float:
    return int(count.replace(",", "")) / _COUNTED_REQUESTS


class _Busiest:
    """The worker rather than its arbiter: the process of a tree that used the most CPU within the block.

    What they used before says little: an arbiter that has imported an application may have used more than a
    worker that has served a few hundred requests.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._before: dict[int, int] = {}
        self.pid = root

    def __enter__(self) -> Self:
        self._before = self._cpu_ns()
        return self

    def __exit__(self, *_: object) -> None:
        used = {pid: ns - self._before.get(pid, 0) for pid, ns in self._cpu_ns().items()}
        self.pid = max(used, key=used.__getitem__)

    def _cpu_ns(self) -> dict[int, int]:
        return {pid: process_tree.process_cpu_ns(pid) for pid in process_tree.pids(self._root)}


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bicorn-profile-") as name:
        yield Path(name)
