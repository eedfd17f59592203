"""Runs a real server, Bicorn or the Gunicorn it is compared with, for one test.

Owns       the process, its process group, its output streams and the directory of its files.
Never      sleeps or guesses: every wait is for a line, a socket, an exit, and has a deadline.
Invariant  after stop() no process of the group is left, whatever the test did.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import IO, TYPE_CHECKING, Literal, TypeVar

from harness.answers import Answer, AnswerReader

if TYPE_CHECKING:
    from typing_extensions import Self

Kind = Literal["bicorn", "gunicorn"]
T = TypeVar("T")

DEADLINE_S = 20.0  # generous: a loaded two-core machine boots eight servers at once
APPS = Path(__file__).resolve().parent.parent / "apps"
LISTENING = re.compile(r"Listening at: (\S+)")
BOOTING = re.compile(r"Booting worker with pid: (\d+)")


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], timeout: float = DEADLINE_S) -> T:
    """Poll a condition that nothing announces (a process table, a file) until it is true; fail at the deadline."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what if isinstance(what, str) else what()}: not within {timeout} s")
        pause.wait(0.02)
    return value


class Output:
    """One output stream of the server, collected by a thread, that can be waited for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._text = ""
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._collect, args=(stream,), daemon=True)
        self._thread.start()

    def _collect(self, stream: IO[bytes]) -> None:
        # read1 returns what is there, so that a line is seen when it is written.
        while data := os.read(stream.fileno(), 65536):
            with self._changed:
                self._text += data.decode("utf-8", "replace")
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """Everything written so far."""
        with self._changed:
            return self._text

    def wait_for(self, found: Callable[[str], T | None], timeout: float, what: str) -> T:
        """Wait until `found` gives something for the text so far."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while (value := found(self._text)) is None:
                left = deadline - time.monotonic()
                assert left > 0 and not self._ended, f"{what} not in the output:\n{self._text}"
                self._changed.wait(left)
            return value

    def join(self, timeout: float) -> None:
        """Wait for the end of the stream: every process that holds it has exited."""
        self._thread.join(timeout)


class Server:
    """A server process under test; use it as a context manager."""

    def __init__(
        self,
        app: str | None,
        *args: str,
        config: str | None = None,
        kind: Kind = "bicorn",
        directory: Path,
        env: Mapping[str, str] | None = None,
        bind: str | None = "127.0.0.1:0",
        pass_fds: Sequence[int] = (),
        launcher: Sequence[str] | None = None,
    ) -> None:
        """`launcher` takes the place of `-m bicorn`: a script that ends by running it with the same arguments."""
        self.kind = kind
        self.directory = directory
        self.arguments = [*self._base_arguments(config, bind, args), *args, *([app] if app else [])]
        self.env = self._environment(env or {})
        self.pass_fds = tuple(pass_fds)
        self.launcher = launcher or ("-m", kind)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Output | None = None
        self._output: Output | None = None

    # -- life ----------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> Server:
        """Start the process; with `wait`, return when it listens and has forked its workers."""
        self._process = subprocess.Popen(
            [sys.executable, *self.launcher, *self.arguments],
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=self.pass_fds,
            start_new_session=True,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._output, self._errors = Output(self._process.stdout), Output(self._process.stderr)
        if wait:
            self.wait_for_log(BOOTING.pattern)
        return self

    def stop(self, sig: Signals = signal.SIGTERM, timeout: float = DEADLINE_S) -> int:
        """Stop the server with a signal and give its exit code."""
        if self.running:
            self.signal(sig)
        return self.wait_exit(timeout)

    def wait_exit(self, timeout: float = DEADLINE_S) -> int:
        """Wait for the arbiter to exit by itself; give its exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not exit within {timeout} s:\n{self.log}") from None
        self._join_output()
        return code

    def kill(self) -> None:
        """End whatever is left of the process group."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_S)
        self._join_output()

    def __enter__(self) -> Self:
        if self._process is None:
            self.start()
        return self

    def begin_end(self) -> None:
        """Tell the server to end at once, without waiting for it."""
        if self._process is not None and self.running:
            self.signal(signal.SIGQUIT)

    def __exit__(self, *exc: object) -> None:
        if self._process is not None and self.running:
            with contextlib.suppress(AssertionError):
                self.stop(signal.SIGQUIT, timeout=5)
        self.kill()

    # -- the process ---------------------------------------------------------------------------

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The arbiter's process."""
        assert self._process is not None, "the server was not started"
        return self._process

    @property
    def pid(self) -> int:
        """The pid of the arbiter."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the arbiter is alive."""
        return self.process.poll() is None

    def signal(self, sig: Signals) -> None:
        """Send a signal to the arbiter."""
        os.kill(self.pid, sig)

    def signal_group(self, sig: Signals) -> None:
        """Send a signal to every process of the group, as a terminal does."""
        os.killpg(self.pid, sig)

    def worker_pids(self) -> list[int]:
        """The live workers, oldest first (by start time, which the kernel keeps)."""
        return [pid for pid in children_of(self.pid) if not _is_template(pid)]

    def template_pids(self) -> list[int]:
        """The processes that workers are forked from, oldest first."""
        return [pid for pid in children_of(self.pid) if _is_template(pid)]

    def wait_for_ready(self, count: int, timeout: float = DEADLINE_S) -> list[int]:
        """Wait until that many workers have said that they accept, and give the living ones.

        Needs Bicorn with --log-level debug, since Gunicorn has no such moment and Bicorn no such line otherwise.
        """
        self.wait_for_log(r"Worker ready \(pid: \d+\)", timeout, count=count)
        return self.worker_pids()

    def wait_for_workers(self, count: int, *, without: Sequence[int] = (), timeout: float = DEADLINE_S) -> list[int]:
        """Wait until exactly `count` workers live and none of them is in `without`."""

        def settled() -> list[int] | None:
            pids = self.worker_pids()
            return pids if len(pids) == count and not set(pids) & set(without) else None

        pids = wait_until(settled, lambda: f"{self.log}\n{count} workers without {without}", timeout)
        assert pids is not None
        return pids

    # -- output --------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """Everything written to stderr so far: the error log."""
        return self._errors.text if self._errors else ""

    @property
    def stdout(self) -> str:
        """Everything written to stdout so far: the access log, when it is `-`."""
        return self._output.text if self._output else ""

    def wait_for_log(
        self,
        pattern: str,
        timeout: float = DEADLINE_S,
        *,
        count: int = 1,
        stream: Literal["stderr", "stdout"] = "stderr",
    ) -> re.Match[str]:
        """Wait for the `count`-th match of a regular expression in the error log (or in stdout); give that match."""
        output = self._errors if stream == "stderr" else self._output
        assert output is not None, "the server was not started"
        expression = re.compile(pattern)

        def nth(text: str) -> re.Match[str] | None:
            matches = list(expression.finditer(text))
            return matches[count - 1] if len(matches) >= count else None

        return output.wait_for(nth, timeout, f"{count} x /{pattern}/")

    def _join_output(self) -> None:
        for stream in (self._errors, self._output):
            if stream is not None:
                stream.join(timeout=2)

    # -- addresses and requests ----------------------------------------------------------------

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as the last "Listening at" line says."""
        self.wait_for_log(LISTENING.pattern)
        last: str = LISTENING.findall(self.log)[-1]
        return last.split(",")

    @property
    def port(self) -> int:
        """The port of the first TCP listener."""
        return next(int(address.rsplit(":", 1)[1]) for address in self.addresses if address.startswith("http"))

    @property
    def url(self) -> str:
        """The URL of the first TCP listener, without a slash at the end."""
        return next(address for address in self.addresses if address.startswith("http"))

    def connect(self, address: str | None = None, timeout: float = DEADLINE_S) -> socket.socket:
        """Open a connection to a listener as it stands in the log (the first one when None)."""
        address = address or self.addresses[0]
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            sock.connect(address.removeprefix("unix:"))
            return sock
        host, port = address.split("://", 1)[1].rsplit(":", 1)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))
        return socket.create_connection((host, int(port)), timeout)

    def get(
        self,
        path: str = "/",
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes = b"",
        address: str | None = None,
        timeout: float = DEADLINE_S,
    ) -> Answer:
        """Make one request on a connection of its own and read its whole answer."""
        fields = {"Host": "test.example", "Connection": "close", **(headers or {})}
        if body:
            fields.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with self.connect(address, timeout) as sock:
            sock.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
            return AnswerReader(sock).read_answer(method)

    def raw(
        self, data: bytes, *, answers: int | None = None, address: str | None = None, timeout: float = DEADLINE_S
    ) -> bytes:
        """Send bytes and give what came back: up to the close, or the bytes of that many framed answers."""
        with self.connect(address, timeout) as sock:
            sock.sendall(data)
            with _Recorder(sock) as recorder:
                reader = AnswerReader(recorder)
                for _ in range(answers or 0):
                    reader.read_answer(data.split(b" ", 1)[0].decode("latin-1"))
                if answers is None:
                    reader.read_to_close()
                return recorder.received

    @contextlib.contextmanager
    def connection(
        self, address: str | None = None, timeout: float = DEADLINE_S
    ) -> Iterator[tuple[socket.socket, AnswerReader]]:
        """Open a connection for several exchanges: the socket and a reader of its answers."""
        with self.connect(address, timeout) as sock:
            yield sock, AnswerReader(sock)

    # -- making --------------------------------------------------------------------------------

    def _base_arguments(self, config: str | None, bind: str | None, args: Sequence[str]) -> list[str]:
        arguments: list[str] = []
        if config is not None:
            path = self.directory / "server.conf.py"
            path.write_text(config)
            arguments += ["-c", str(path)]
        if bind is not None and not _sets_bind(config, args):
            arguments += ["-b", bind]
        if self.kind == "gunicorn":
            # Its default path is one per user, which parallel tests would fight for.
            arguments += ["--no-control-socket"]
        return arguments

    @staticmethod
    def _environment(extra: Mapping[str, str]) -> dict[str, str]:
        ours = (
            "PORT",
            "WEB_CONCURRENCY",
            "FORWARDED_ALLOW_IPS",
            "GUNICORN_CMD_ARGS",
            "BICORN_CMD_ARGS",
            "SCRIPT_NAME",
            "PWD",
        )
        env = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("PYTEST_")}
        paths = [str(APPS), *_package_root()]
        env["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
        env["PYTHONUNBUFFERED"] = "1"
        env.update(extra)
        return env


class Serve:
    """The `serve` fixture: starts servers in directories of their own and ends them with the test."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        """`arguments` come first in the command of each server."""
        self._directory = directory
        self._arguments = arguments
        self._started: list[Server] = []

    def __call__(
        self,
        app: str | None,
        *args: str,
        config: str | None = None,
        kind: Kind = "bicorn",
        env: Mapping[str, str] | None = None,
        bind: str | None = "127.0.0.1:0",
        pass_fds: Sequence[int] = (),
        launcher: Sequence[str] | None = None,
        files: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Server:
        """Start a server in a new directory that holds `files`; with `wait`, when it listens and has forked."""
        directory = self._directory / f"{kind}{len(self._started)}"
        directory.mkdir()
        for name, text in (files or {}).items():
            (directory / name).write_text(text)
        server = Server(
            app,
            *self._arguments,
            *args,
            config=config,
            kind=kind,
            directory=directory,
            env=env,
            bind=bind,
            pass_fds=pass_fds,
            launcher=launcher,
        )
        self._started.append(server)
        return server.start(wait=wait)

    def close(self) -> None:
        """End every server that was started, all at the same time."""
        for server in self._started:
            server.begin_end()
        for server in self._started:
            server.__exit__()


class _Recorder(socket.socket):
    """A socket that keeps a copy of all that it received."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
        self.settimeout(sock.gettimeout())
        self.received = b""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        try:
            data = super().recv(bufsize, flags)
        except ConnectionResetError:
            return b""
        self.received += data
        return data


def _sets_bind(config: str | None, args: Sequence[str]) -> bool:
    in_args = any(arg in ("-b", "--bind") or arg.startswith(("--bind=", "-b1", "-bu")) for arg in args)
    return in_args or bool(config and re.search(r"^bind\b", config, re.MULTILINE))


def _package_root() -> list[str]:
    """Where the bicorn that the tests import lives, so that the server under test is the same one."""
    spec = importlib.util.find_spec("bicorn")
    return [str(Path(location).parent) for location in (spec.submodule_search_locations or [])] if spec else []


def children_of(pid: int) -> list[int]:
    """The live (not zombie) children of a process, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command name may hold spaces and parentheses: fields are counted from its last parenthesis.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append((int(fields[19]), int(entry.name)))
    return [child for _, child in sorted(found)]


def suspend(pid: int) -> None:
    """Stop a process with SIGSTOP, and wait until each of its threads has stopped."""
    os.kill(pid, signal.SIGSTOP)

    def has_stopped() -> bool:
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        return set(states) == {"T"}

    wait_until(has_stopped, f"{pid} has stopped")


def _is_template(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"template" in (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"[")[0]
    return False


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
