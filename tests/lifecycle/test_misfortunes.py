"""What the world does to a server: killed and stopped processes, full disks, exhausted limits, false clocks."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.descriptors import connections, descriptors, listeners
from harness.gate import Gate
from harness.load import load
from harness.server import DEADLINE_S, Serve, Server, is_alive, suspend, wait_until
from workers.classes import LOOPS

Start = Callable[..., Server]
REQUEST = b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n"


# -- processes that are killed or stopped ----------------------------------------------------------


# The class whose workers hold one request at a time; tests/soak/test_kills.py has the others.
@pytest.mark.parametrize("lossless", ["sync"], indirect=True)
def test_a_killed_worker_takes_only_its_own_request_with_it(lossless: Start, gate: Gate) -> None:
    server = lossless("gated:app", "-w", "2", env=gate.env)
    server.wait_for_ready(2)
    with server.connection() as (sock, reader):
        sock.sendall(REQUEST)
        gate.wait_started()
        # From here on, connections are accepted by the other worker.
        with load(server, path="/free") as traffic:
            victim = holder_of(server)
            os.kill(victim, signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert reader.read_to_close() == b""
            server.wait_for_workers(2, without=[victim])
            traffic.wait_for(50)
    assert (traffic.failures, traffic.retried) == ([], [])


def holder_of(server: Server) -> int:
    """The worker that waits in the gate: the one that reads a FIFO."""

    def waiting() -> list[int]:
        return [pid for pid in server.worker_pids() if any("release" in target for target in descriptors(pid))]

    (holder,) = wait_until(waiting, "a worker in the gate")
    return holder


def test_workers_of_a_killed_arbiter_finish_what_they_hold_and_go(lossless: Start, gate: Gate) -> None:
    server = lossless("gated:app", "-w", "2", env=gate.env)
    workers = server.wait_for_ready(2)
    with server.connection() as (sock, reader):
        sock.sendall(REQUEST)
        gate.wait_started()
        holder = holder_of(server)
        (other,) = set(workers) - {holder}
        server.signal(signal.SIGKILL)
        # A quarter of a second, where nothing else runs; graceful_timeout would be thirty.
        wait_until(lambda: not is_alive(other), "the end of the idle worker", timeout=3)
        assert is_alive(holder)
        gate.release()
        assert reader.read_answer().body == b"done"
        wait_until(lambda: not is_alive(holder), "the end of the worker that held a request", timeout=3)


def test_a_killed_arbiter_loses_no_request_that_a_worker_had(lossless: Start) -> None:
    server = lossless("journal:app", "-w", "2")
    workers = server.wait_for_ready(2)
    with load(server, keep_alive=8, fresh=8) as traffic:
        traffic.wait_for(50)
        server.signal(signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in workers), "the end of the workers", timeout=5)
        wait_until(lambda: len(traffic.failures) > 5, "refusals")
    began = journal(server, "began")
    assert [loss for loss in traffic.failures if loss.request in began] == []
    # Connections that were between two requests as well: they are not left to a sibling that goes, too.
    assert traffic.retried == []
    # Nobody is left who could close the listen queue to newcomers, so the last of them may be reset in it.
    assert {loss.kind for loss in traffic.failures} <= {"refused", "reset"}


def journal(server: Server, word: str) -> dict[str, int]:
    """Which process began, or ended, each request."""
    lines = [line.split() for line in (server.directory / "journal").read_text().splitlines()]
    return {name: int(pid) for pid, verb, name in lines if verb == word}


@pytest.mark.parametrize("lossless", ["sync", "asgi"], indirect=True)
def test_a_stopped_worker_keeps_nobody_else_waiting(lossless: Start) -> None:
    server = lossless("hello:app", "-w", "2", "-t", "5")
    stuck, other = server.wait_for_ready(2)
    # Stopped just so, the kernel may wake it for a connection that it cannot take any more.
    suspend(stuck)
    for _ in range(6):
        assert server.get("/", timeout=3).status == 200
    server.wait_for_log(rf"WORKER TIMEOUT \(pid:{stuck}\)")
    server.wait_for_log(rf"Worker \(pid:{stuck}\) was sent SIGKILL")
    assert other in server.wait_for_workers(2, without=[stuck])
    assert server.get("/").status == 200


#: Every class, and asyncio's loops apart.
CLASSES = [
    *(pytest.param(name, (), id=name) for name in ("sync", "gthread", "gevent", "eventlet", "tornado")),
    *(pytest.param("asgi", ("--asgi-loop", loop), id=f"asgi-{loop}") for loop in LOOPS),
]


@pytest.mark.parametrize(("lossless", "more"), CLASSES, indirect=["lossless"])
def test_what_came_while_a_worker_was_stopped_is_answered(lossless: Start, more: tuple[str, ...]) -> None:
    server = lossless("hello:app", "--keep-alive", "1", *more)
    (worker,) = server.wait_for_ready(1)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connection()) for _ in range(8)]
        for sock, reader in idle:
            sock.sendall(REQUEST)
            assert reader.read_answer().status == 200
        suspend(worker)
        for sock, _ in idle:
            sock.sendall(REQUEST)
        idle[0][0].settimeout(1.5)  # Longer than `keepalive`: when the worker goes on, it is over for all of them.
        with pytest.raises(TimeoutError):
            idle[0][0].recv(1)
        idle[0][0].settimeout(DEADLINE_S)
        os.kill(worker, signal.SIGCONT)
        assert [reader.read_answer().status for _, reader in idle] == [200] * len(idle)


# -- disks that are full ---------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", ["sync", "asgi"], indirect=True)
def test_logs_that_cannot_be_written_cost_no_request(lossless: Start) -> None:
    logs = ("--access-logfile", "/dev/full", "--error-logfile", "/dev/full")
    server = lossless("hello:app", "-w", "2", *logs, bind="unix:s.sock", wait=False)
    path = server.directory / "s.sock"
    wait_until(lambda: path.exists() and len(server.worker_pids()) == 2, "the socket and two workers")
    with load(f"unix:{path}", keep_alive=8, fresh=4) as traffic:
        traffic.wait_for(200)
        old = server.worker_pids()
        server.signal(signal.SIGHUP)
        server.wait_for_workers(2, without=old)
        server.signal(signal.SIGUSR1)
        traffic.wait_for(200)
    assert (traffic.failures, traffic.retried) == ([], [])
    assert server.stop() == 0
    lost = re.findall(r"Cannot write to the log file '/dev/full': No space left on device; lines lost: \d+", server.log)
    assert 1 <= len(lost) <= 10, server.log  # One a process and log.
    assert "Traceback" not in server.log


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "gevent", "asgi", "tornado"])
def test_access_lines_that_are_lost_are_told_at_once(serve: Serve, worker_class: str) -> None:
    server = serve("hello:app", "-k", worker_class, "--access-logfile", "/dev/full")
    assert server.get("/").status == 200
    server.wait_for_log("Cannot write to the log file '/dev/full': No space left on device.*; lines lost: 1\n")
    assert server.get("/").status == 200
    assert server.stop() == 0
    assert server.log.count("Cannot write to the log file") == 1


# -- limits of the process -------------------------------------------------------------------------

#: Runs the server with few descriptors: the standard ones, its own ten or so, and some for connections.
FEW_DESCRIPTORS = (
    "import os, resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'bicorn', *sys.argv[1:]])\n"
)


#: Every way in which connections are accepted: the native loop, alone and beside another, and those of Python's loops.
ACCEPTING = [
    pytest.param("sync", (), id="sync"),
    pytest.param("gevent", (), id="gevent"),
    pytest.param("tornado", (), id="tornado"),
    *(pytest.param("asgi", ("--asgi-loop", loop), id=f"asgi-{loop}") for loop in LOOPS),
]


@pytest.mark.parametrize(("lossless", "more"), ACCEPTING, indirect=["lossless"])
def test_connections_beyond_the_descriptors_wait_and_are_served(lossless: Start, more: tuple[str, ...]) -> None:
    server = lossless("hello:app", *more, launcher=("few.py",), files={"few.py": FEW_DESCRIPTORS})
    (worker,) = server.wait_for_ready(1)
    with contextlib.ExitStack() as stack:
        # These say nothing, so the server holds each until header_timeout.
        silent = [stack.enter_context(server.connect()) for _ in range(60)]
        server.wait_for_log(r"Cannot accept connections: .*see `ulimit -n`")
        late, reader = stack.enter_context(server.connection())
        late.sendall(REQUEST)
        before = cpu_s(worker)
        late.settimeout(2)
        with pytest.raises(TimeoutError):
            late.recv(1)
        # A loop that tries again at once would have used up these two seconds.
        assert cpu_s(worker) - before < 0.5
        late.settimeout(DEADLINE_S)
        for sock in silent:
            sock.close()
        assert reader.read_answer().status == 200
    with load(server) as traffic:
        traffic.wait_for(100)
    assert (traffic.failures, traffic.retried) == ([], [])
    assert server.worker_pids() == [worker]
    assert server.log.count("Cannot accept connections") == 1
    assert "Traceback" not in server.log


@pytest.mark.parametrize(("lossless", "more"), ACCEPTING, indirect=["lossless"])
def test_an_application_that_takes_all_descriptors_loses_no_connection(lossless: Start, more: tuple[str, ...]) -> None:
    server = lossless("hoarding:app", *more, launcher=("few.py",), files={"few.py": FEW_DESCRIPTORS})
    (worker,) = server.wait_for_ready(1)
    with server.connection() as (sock, reader), contextlib.ExitStack() as stack:
        sock.sendall(REQUEST.replace(b"/", b"/take", 1))
        assert reader.read_answer().status == 200
        # Half of the next request: an idle connection might be closed to make room.
        give = REQUEST.replace(b"/", b"/give", 1)
        sock.sendall(give[:9])
        if "uvloop" in more:
            server.wait_for_log("Descriptors are scarce")  # Until this beat of the worker, the queue is libuv's.
        waiting = [stack.enter_context(server.connection()) for _ in range(10)]
        for late, _ in waiting:
            late.sendall(REQUEST)
        server.wait_for_log(r"Cannot accept connections: .*see `ulimit -n`")
        sock.sendall(give[9:])
        assert reader.read_answer().status == 200
        assert [answers.read_answer().status for _, answers in waiting] == [200] * len(waiting)
    if "uvloop" in more:
        server.wait_for_log("Descriptors are there again")
    with load(server) as traffic:
        traffic.wait_for(100)
    assert (traffic.failures, traffic.retried) == ([], [])
    assert server.worker_pids() == [worker]


@pytest.mark.parametrize(("lossless", "more"), ACCEPTING, indirect=["lossless"])
def test_a_worker_that_leaves_without_descriptors_serves_what_waits(lossless: Start, more: tuple[str, ...]) -> None:
    server = lossless("hello:app", *more)
    (worker,) = server.wait_for_ready(1)
    with contextlib.ExitStack() as stack:
        limits = limit_descriptors(worker)
        if "uvloop" in more:
            server.wait_for_log("Descriptors are scarce")
            # libuv gives its part of the listener back some turns later; whoever came before that would be answered.
            wait_until(lambda: listeners(worker, server.port) == 1, "libuv to have closed the listener")
            limit_descriptors(worker)
        waiting = [stack.enter_context(server.connection()) for _ in range(10)]
        for sock, _ in waiting:
            sock.sendall(REQUEST)
        server.wait_for_log(r"Cannot accept connections: .*see `ulimit -n`")
        server.signal(signal.SIGTERM)
        server.wait_for_log("Handling signal: term")
        waiting[0][0].settimeout(1)
        with pytest.raises(TimeoutError):
            waiting[0][0].recv(1)  # Neither answered nor reset.
        waiting[0][0].settimeout(DEADLINE_S)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        assert [answers.read_answer().status for _, answers in waiting] == [200] * len(waiting)
    assert server.wait_exit() == 0
    assert "Traceback" not in server.log and "SIGKILL" not in server.log


@pytest.mark.parametrize(("lossless", "more"), ACCEPTING, indirect=["lossless"])
def test_a_worker_that_leaves_without_descriptors_serves_what_was_left_to_it(
    lossless: Start, more: tuple[str, ...]
) -> None:
    server = lossless("hello:app", "-w", "2", "--keep-alive", "60", *more)
    leaving, staying = server.wait_for_ready(2)
    suspend(staying)
    with server.connection() as (sock, reader):
        sock.sendall(REQUEST)
        assert reader.read_answer().status == 200
        server.signal(signal.SIGTTOU)
        wait_until(lambda: not is_alive(leaving), "a worker has left its connection behind")
        limits = limit_descriptors(staying)
        sock.sendall(REQUEST)
        server.signal(signal.SIGTERM)
        server.wait_for_log("Handling signal: term")
        os.kill(staying, signal.SIGCONT)
        sock.settimeout(1)
        with contextlib.suppress(TimeoutError):  # A worker that has closed its listeners first has room for it.
            assert sock.recv(1, socket.MSG_PEEK) != b""
        sock.settimeout(DEADLINE_S)
        resource.prlimit(staying, resource.RLIMIT_NOFILE, limits)
        assert reader.read_answer().status == 200
    assert server.wait_exit() == 0
    assert "Traceback" not in server.log and "SIGKILL" not in server.log


@pytest.mark.parametrize("is_stopped", [False, True], ids=["stays", "leaves"])
@pytest.mark.parametrize(("lossless", "more"), ACCEPTING, indirect=["lossless"])
def test_a_connection_that_changes_workers_waits_for_a_descriptor(
    lossless: Start, more: tuple[str, ...], is_stopped: bool
) -> None:
    server = lossless("whose:app", "-w", "2", "--keep-alive", "60", *more)
    leaving, staying = sorted(server.wait_for_ready(2), key=started)  # SIGTTOU ends the oldest of those that are ready.
    with connected_to(server, leaving) as (sock, answers):
        # Nothing idle is left there that could be closed to make room.
        wait_until(lambda: not connections(staying, server.port), "the worker that stays to be idle")
        limits = resource.prlimit(staying, resource.RLIMIT_NOFILE)
        resource.prlimit(staying, resource.RLIMIT_NOFILE, (3, limits[1]))  # None is free, whatever it closes.
        server.signal(signal.SIGTTOU)
        wait_until(lambda: server.worker_pids() == [staying], "one worker")
        server.wait_for_log(r"Cannot accept connections: .*see `ulimit -n`")
        used = cpu_s(staying)
        sock.sendall(REQUEST)
        sock.settimeout(1)
        with pytest.raises(TimeoutError):
            sock.recv(1)  # Neither answered nor reset.
        assert cpu_s(staying) - used < 0.3
        if is_stopped:
            server.signal(signal.SIGTERM)
            server.wait_for_log("Handling signal: term")
            with pytest.raises(TimeoutError):
                sock.recv(1)
        sock.settimeout(DEADLINE_S)
        resource.prlimit(staying, resource.RLIMIT_NOFILE, limits)
        assert answers.read_answer().text.startswith(f"{staying} ")
    assert "Traceback" not in server.log and "SIGKILL" not in server.log


def started(pid: int) -> tuple[int, int]:
    """When a process started, by proc(5), and its number for two of one moment."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid


@contextlib.contextmanager
def connected_to(server: Server, pid: int) -> Iterator[tuple[socket.socket, AnswerReader]]:
    """A connection to this worker, between two requests."""
    for _ in range(1000):
        with server.connection() as (sock, answers):
            sock.sendall(REQUEST)
            if answers.read_answer().text.startswith(f"{pid} "):
                yield sock, answers
                return
    raise AssertionError(f"no connection reached worker {pid}")


@pytest.mark.parametrize("lossless", ["sync", "tornado", "asgi"], indirect=True)
def test_a_worker_that_leaves_without_descriptors_leaves_at_once_if_nobody_waits(lossless: Start) -> None:
    server = lossless("hello:app", "--graceful-timeout", "60")
    (worker,) = server.wait_for_ready(1)
    limit_descriptors(worker)
    assert server.stop() == 0
    assert "SIGKILL" not in server.log


def limit_descriptors(pid: int) -> tuple[int, int]:
    """Let the process open no more than it has open; gives the limits of before."""
    first, second = (os.listdir(f"/proc/{pid}/fd") for _ in range(2))
    taken = {int(name) for name in first if name in second}  # Without one that is open for a moment only.
    lowest = next(number for number in range(len(taken) + 1) if number not in taken)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
    return before


@pytest.mark.parametrize(("lossless", "more"), ACCEPTING, indirect=["lossless"])
def test_idle_connections_make_room(lossless: Start, more: tuple[str, ...]) -> None:
    few = {"few.py": FEW_DESCRIPTORS}
    server = lossless("hello:app", "--keep-alive", "60", *more, launcher=("few.py",), files=few)
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            sock, reader = stack.enter_context(server.connection())
            sock.sendall(REQUEST)
            assert reader.read_answer().status == 200
    server.wait_for_log("Cannot accept connections")


def cpu_s(pid: int) -> float:
    """The processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


NOBODY = 65534
#: Gives up root once everything is imported, so that limits on processes hold, and goes where such a user may be.
AS_NOBODY = (
    "import os, sys\n"
    "import asyncio, importlib.metadata, locale\n"
    "import bicorn.cli.main, bicorn.workers.sync, hello\n"
    "os.chdir('/')\n"
    f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    "sys.exit(bicorn.cli.main.main())\n"
)


@pytest.mark.parametrize("lossless", ["sync"], indirect=True)
def test_a_fork_that_fails_is_tried_again(lossless: Start) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user that has no processes yet")
    server = lossless("hello:app", "-w", "2", launcher=("nobody.py",), files={"nobody.py": AS_NOBODY})
    victim, other = server.wait_for_ready(2)
    # A limit below what there is: fork() fails with EAGAIN (RLIMIT_NPROC, setrlimit(2)).
    limit_processes(server.pid, 1)
    with load(server) as traffic:
        traffic.wait_for(50)
        # Quiet, so that it takes no request with it.
        os.kill(victim, signal.SIGTERM)
        server.wait_for_log(r"A worker could not be started: .*Resource temporarily unavailable", count=2)
        assert server.worker_pids() == [other]
        limit_processes(server.pid, resource.getrlimit(resource.RLIMIT_NPROC)[1])
        server.wait_for_workers(2, without=[victim])
        traffic.wait_for(50)
    assert (traffic.failures, traffic.retried) == ([], [])


def limit_processes(pid: int, most: int) -> None:
    """Set the soft limit, as the process's own user: root may lack CAP_SYS_RESOURCE."""
    soft = "unlimited" if most == resource.RLIM_INFINITY else str(most)
    command = ["prlimit", "--pid", str(pid), f"--nproc={soft}:"]
    subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], check=True, timeout=DEADLINE_S)


# -- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lossless", ["sync", "asgi"], indirect=True)
def test_a_clock_that_jumps_changes_the_date_and_nothing_else(lossless: Start) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    clock = Clock()
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock.file),
        "FAKETIME_NO_CACHE": "1",
        # The monotonic clock does not jump, in the kernel either.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with clock:
        server = lossless("hello:app", "-w", "2", "-t", "10", "--access-logfile", "-", env=env)
        workers = server.wait_for_ready(2)
        with load(server) as traffic:
            for days in (400, -400, 0):
                clock.jump(days)
                wait_until_it_is(today(days), server)
                traffic.wait_for(300)  # A second: more than a beat of each worker.
        assert (traffic.failures, traffic.retried) == ([], [])
        assert server.worker_pids() == workers
        assert not re.search("TIMEOUT|ERROR|WARNING", server.log), server.log
        assert server.stop() == 0


class Clock:
    """What libfaketime says the time is."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bicorn-clock-")
        self.file = Path(self._directory.name) / "clock"
        self.jump(0)

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, *exc: object) -> None:
        self._directory.cleanup()

    def jump(self, days: int) -> None:
        """Set the clock so many days off."""
        beside = self.file.with_suffix(".new")
        beside.write_text(f"{days:+d}d\n")
        beside.rename(self.file)


def wait_until_it_is(day: datetime.date, server: Server) -> None:
    """Wait until answers have that date."""
    wait_until(lambda: date_of(server) == day, f"{day} in the Date of an answer")


def date_of(server: Server) -> datetime.date:
    """The day that an answer says it is."""
    return email.utils.parsedate_to_datetime(server.get("/").header("Date") or "").date()


def today(days: int) -> datetime.date:
    """The day so many days from now, as HTTP has it."""
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).date()
