"""Holds clients on a server while a block runs, and says which requests were lost.

    with load(server, keep_alive=8, fresh=4) as traffic:
        server.signal(signal.SIGHUP)
        traffic.wait_for(100, body=b"new")
    assert traffic.failures == []

Owns       the process of the clients (harness.clients) and what it reported.
Never      skews what it measures: the clients are paced, and run outside of the test's interpreter.
Invariant  when the block has ended, every request that was begun has been judged.

What is a failure: a connection refused, reset or timed out; an answer that is short, malformed or not 200; a close
before any byte of an answer. A keep-alive connection that closes while it is idle is none (RFC 9112, 9.5): no byte of a
request had been sent. When the close and the request pass each other, the client asks once more on a new connection, as
9.3.1 allows; those are `retried`, apart from the failures, because guarantee 1 is stricter than the RFC.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.clients import Loss, Plan
from harness.server import DEADLINE_S, Server

CLIENTS = Path(__file__).with_name("clients.py")


class Traffic:
    """What became of the requests so far; everything may be read while the clients run."""

    def __init__(self) -> None:
        self.bodies: Counter[bytes] = Counter()  # of good answers; long ones by their first 200 bytes
        self.failures: list[Loss] = []
        self.retried: list[Loss] = []
        self.counts: Counter[str] = Counter()  # idle_closed, idle_reset, unasked
        self.slowest_s = 0.0  # of the good answers
        self._changed = threading.Condition()

    @property
    def answered(self) -> int:
        """How many good answers there were."""
        return self.bodies.total()

    def wait_for(self, count: int, *, body: bytes | None = None, timeout: float = DEADLINE_S) -> None:
        """Wait for `count` more good answers, of that body if one is given."""
        deadline = time.monotonic() + timeout
        with self._changed:
            goal = self._count(body) + count
            while self._count(body) < goal:
                left = deadline - time.monotonic()
                assert left > 0, f"not {count} answers more of {body!r} within {timeout} s: {self}"
                self._changed.wait(left)

    def _count(self, body: bytes | None) -> int:
        return self.answered if body is None else self.bodies[body]

    def __str__(self) -> str:
        return f"{dict(self.bodies)}, failures {self.failures}, retried {self.retried}, {dict(self.counts)}"

    def collect(self, lines: IO[bytes]) -> None:
        """Take in what the clients report, until they end."""
        for line in lines:
            record = json.loads(line)
            with self._changed:
                if "failure" in record:
                    self.failures.append(Loss(**record["failure"]))
                elif "retried" in record:
                    self.retried.append(Loss(**record["retried"]))
                else:
                    self.bodies.update({key.encode("latin-1"): count for key, count in record["bodies"].items()})
                    self.counts.update(record["counts"])
                    self.slowest_s = max(self.slowest_s, record["slowest"])
                self._changed.notify_all()


@contextlib.contextmanager
def load(
    server: Server | str,
    *,
    keep_alive: int = 8,
    fresh: int = 4,
    rate: float = 300,
    path: str = "/",
    timeout: float = 10,
) -> Iterator[Traffic]:
    """Hold `keep_alive` + `fresh` clients on a server: together `rate` requests a second, until the block ends.

    They connect to the first listener of a Server, or to an address (http://host:port, unix:path). `timeout` is what a
    request gets, in seconds. The block begins when the first good answer has come.
    """
    address = server if isinstance(server, str) else _first_listener(server)
    plan = Plan(address, path, keep_alive, fresh, rate, timeout)
    traffic = Traffic()
    command = [sys.executable, str(CLIENTS), json.dumps(dataclasses.asdict(plan))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    reader = threading.Thread(target=traffic.collect, args=(process.stdout,))
    reader.start()
    try:
        traffic.wait_for(1)
        yield traffic
    finally:
        process.stdin.close()
        try:
            process.wait(timeout + DEADLINE_S)
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
    assert process.returncode == 0, "the clients crashed: see their traceback on stderr"


def _first_listener(server: Server) -> str:
    address = server.addresses[0]
    return f"unix:{server.directory / address.removeprefix('unix:')}" if address.startswith("unix:") else address
