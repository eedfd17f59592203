"""A server under test as a real process on its own core, from its first to its last moment.

Owns       the process group of one server, its output file and its access log.
Never      touches a process outside that group.
Invariant  when the context ends no process of the group is left and its files are gone.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from bench.servers import ROOT, Order, Server

if TYPE_CHECKING:
    from typing_extensions import Self

READY_TIMEOUT_S: Final = 60.0  # Under valgrind an interpreter needs half of it to start.
STOP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.02

# Nothing from the caller's shell may configure a server: GUNICORN_CMD_ARGS, WEB_CONCURRENCY, UWSGI_*.
_KEPT_VARIABLES: Final = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


class ServerFailed(Exception):
    """The server did not start, did not answer, or answered something else than was asked for."""


@dataclass(frozen=True)
class Request:
    """The exchange that proves a server ready, and that it does the same work as the others."""

    # The body that is the right answer; None accepts any, for applications whose answers differ.
    answer: bytes | None
    body_bytes: int = 0
    # A streamed answer has no Content-Length.
    has_length: bool = True


class RunningServer:
    """`with RunningServer(server, order, request, cpu=0) as running: …` serves until the block ends."""

    def __init__(
        self, server: Server, order: Order, request: Request, *, cpu: int | None, access_log: bool = False
    ) -> None:
        self._server = server
        self._request = request
        self._cpu = cpu
        self._folder = Path(tempfile.mkdtemp(prefix="bicorn-bench-"))
        self._output = self._folder / "output"
        log = self._folder / "access.log" if access_log else None
        self.order = replace(order, port=_free_port(), access_log=log)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server runs only inside its with block"
        return self._process.pid

    def __enter__(self) -> Self:
        command = self._server.command(self.order)
        if not Path(command[0]).exists():
            shutil.rmtree(self._folder)
            raise ServerFailed(f"is not installed: there is no {Path(command[0]).relative_to(ROOT)}")
        log = self.order.access_log
        stdout = log if log is not None and self._server.logs_to_stdout else self._output
        with stdout.open("ab") as out, self._output.open("ab") as err:
            self._process = subprocess.Popen(
                pinned(self._cpu, command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env=_environment(),
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def check_log(self, requests_min: int) -> None:
        """Refuses a measurement whose access log does not hold the requests: it was not the same work."""
        if self.order.access_log is None:
            return
        with self.order.access_log.open("rb") as log:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
        if lines < requests_min:
            raise ServerFailed(f"the access log holds {lines} lines after {requests_min} requests")

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise ServerFailed(f"exited {self._process.returncode} at start: {self._last_words()}")
            with contextlib.suppress(ConnectionError, TimeoutError):
                self._check_answer()
                return
            time.sleep(_POLL_S)
        raise ServerFailed(f"did not answer within {READY_TIMEOUT_S:.0f} s: {self._last_words()}")

    def _check_answer(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.order.port, timeout=5)
        with contextlib.closing(connection):
            body = b"x" * self._request.body_bytes
            connection.request("POST" if body else "GET", "/", body=body or None)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200 or self._request.answer not in (None, answer):
                raise ServerFailed(f"answered {response.status} {answer[:80]!r}, not what the work asks for")
            if self._request.has_length and response.getheader("Content-Length") is None:
                raise ServerFailed("answered without Content-Length")

    def _last_words(self) -> str:
        """The end of its output, without the path of this clone: it goes into the results."""
        text = self._output.read_text(errors="replace").replace(f"{ROOT}/", "")
        lines = text.strip().splitlines()
        return " | ".join(lines[-3:]) or "no output"

    def _stop(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        # Whatever is left of the group: a server that ignores SIGTERM, a worker that outlived its parent.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._folder)


def pinned(cpu: int | None, command: Sequence[str]) -> list[str]:
    """The same command on one core. taskset replaces itself by it, so the pid is the command's own."""
    return [*command] if cpu is None else ["taskset", "--cpu-list", str(cpu), *command]


@contextlib.contextmanager
def on_core(cpu: int, command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A client process on one core, talking through its standard streams; ended with the block."""

    process = subprocess.Popen(
        pinned(cpu, command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # The applications are found as bench.apps.* whatever a server does with its working directory.
    return {**kept, "PYTHONPATH": str(ROOT)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
