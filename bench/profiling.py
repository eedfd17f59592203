"""Where a request's time goes: perf for the whole picture, callgrind for exact instruction counts.

Owns       the command lines of perf and valgrind, and which process they look at.
Never      takes part in a comparison: both slow the server down.

perf samples by the CPU clock, because virtual machines often have no hardware counters. It sees the
kernel, which is half of a hello. callgrind sees only user space but counts every instruction: two runs of
the same code differ by less than a tenth of a per cent on the busiest machine, so it can judge a change
that no stopwatch can.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import connections, load, process_tree
from bench.machine import Cores
from bench.running import Request, RunningServer
from bench.servers import Order, Server
from bench.works import Work

SAMPLES_PER_SECOND: Final = 1999
SYMBOLS_SHOWN: Final = 45

# valgrind runs the server some fifty times slower; this many requests still end within seconds.
_COUNTED_REQUESTS: Final = 2_000
_WARM_UP_REQUESTS: Final = 500


def sample(server: Server, work: Work, seconds: int, cores: Cores) -> str:
    """The symbols that the busiest process of the server spends its time in under load."""
    request = Request(work.answer, work.request_body_bytes)
    with (
        RunningServer(server, work.app, request, cpu=cores.server) as running,
        _folder() as folder,
    ):
        load.run(
            running.order.port,
            seconds=1,
            cpu=cores.load,
            body_bytes=work.request_body_bytes,
        )
        pid = _busiest(running.pid)
        record = [
            "perf",
            "record",
            "--quiet",
            "--event",
            "cpu-clock",
            "--freq",
            str(SAMPLES_PER_SECOND),
        ]
        record += [
            "--pid",
            str(pid),
            "--output",
            str(folder / "perf.data"),
            "--",
            "sleep",
            str(seconds),
        ]
        recorder = subprocess.Popen(record, stdin=subprocess.DEVNULL)
        try:
            load.run(
                running.order.port,
                seconds=seconds,
                cpu=cores.load,
                body_bytes=work.request_body_bytes,
            )
        finally:
            recorder.wait()
        return _top_symbols(folder / "perf.data")


def count_instructions(server: Server, work: Work, cores: Cores) -> str:
    """User-space instructions a request, and the functions that they are in."""
    with _folder() as folder:
        traced = _under_callgrind(server, folder)
        request = Request(work.answer, work.request_body_bytes)
        with RunningServer(traced, work.app, request, cpu=cores.server) as running:
            _exchange(running.order.port, _WARM_UP_REQUESTS)
            pid = _busiest(running.pid)
            _callgrind_control(pid, "--instr=on")
            _exchange(running.order.port, _COUNTED_REQUESTS)
            _callgrind_control(pid, "--instr=off")
            _callgrind_control(pid, "--dump")
        return _annotated(sorted(folder.glob(f"callgrind.out.{pid}*")))


def _top_symbols(data: Path) -> str:
    report = [
        "perf",
        "report",
        "--input",
        str(data),
        "--stdio",
        "--no-children",
        "--sort",
        "dso,symbol",
    ]
    done = subprocess.run(report, capture_output=True, text=True, check=True)
    symbols = [
        line.rstrip()
        for line in done.stdout.splitlines()
        if line.strip() and line[0] != "#"
    ]
    return "\n".join(symbols[:SYMBOLS_SHOWN])


def _under_callgrind(server: Server, folder: Path) -> Server:
    valgrind = [
        _valgrind(),
        "--tool=callgrind",
        "--quiet",
        "--instr-atstart=no",
        "--trace-children=yes",
    ]
    valgrind += [f"--callgrind-out-file={folder}/callgrind.out.%p"]

    def command(order: Order) -> list[str]:
        return [*valgrind, *server.command(order)]

    return Server(
        server.name, server.distribution, server.python, command, server.about
    )


def _valgrind() -> str:
    found = shutil.which("valgrind")
    if found is None:
        raise SystemExit("bench: valgrind is not installed; `apt-get install valgrind`")
    return found


def _exchange(port: int, count: int) -> None:
    """Requests one after another on one connection, so that the count of work is exact."""
    with connections.KeepAliveClient(port) as client:
        for _ in range(count):
            client.exchange()


def _callgrind_control(pid: int, order: str) -> None:
    subprocess.run(
        ["callgrind_control", order, str(pid)], check=True, stdout=subprocess.DEVNULL
    )


def _annotated(dumps: list[Path]) -> str:
    done = subprocess.run(
        ["callgrind_annotate", "--show-percs=yes", *map(str, dumps[:1])],
        capture_output=True,
        text=True,
        check=True,
    )
    total = re.search(r"([\d,]+) \(100\.0%\)", done.stdout)
    instructions = int(total[1].replace(",", "")) if total else 0
    lines = [
        line
        for line in done.stdout.splitlines()
        if re.match(r"\s*[\d,]+ \(\s*\d", line)
    ]
    head = f"{instructions / _COUNTED_REQUESTS:,.0f} user-space instructions a request"
    return "\n".join([head, "", *lines[1 : SYMBOLS_SHOWN + 1]])


def _busiest(root: int) -> int:
    """The worker rather than its arbiter: the process of the tree that used the most CPU so far."""
    return max(process_tree.pids(root), key=process_tree.process_cpu_ns)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bicorn-profile-") as name:
        yield Path(name)
