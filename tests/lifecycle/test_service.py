"""What a service manager hears from a server: a real notify socket, as systemd's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.gate import Gate
from harness.server import DEADLINE_S, Serve, Server, suspend

ROOT = Path(__file__).resolve().parents[2]


class Manager:
    """The manager's end: what was said, one assignment after the other."""

    def __init__(self, directory: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(f"{directory}/notify")
        self.env = {"NOTIFY_SOCKET": f"{directory}/notify"}
        self.said: list[str] = []

    def wait_for(self, *wanted: str, timeout: float = DEADLINE_S) -> list[str]:
        """Wait until all of these were said, as beginnings of lines and in this order; give what was said meanwhile."""
        left = list(wanted)
        heard: list[str] = []
        deadline = time.monotonic() + timeout
        while left:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                lines = self.sock.recv(4096).decode().split("\n")
            except TimeoutError:
                raise AssertionError(f"not said within {timeout} s: {left}; heard: {heard}") from None
            heard += lines
            for line in lines:
                if left and line.startswith(left[0]):
                    del left[0]
        self.said += heard
        return heard

    def is_silent_about(self, unwanted: str, seconds: float) -> bool:
        """Listen for that long; whether nothing that begins so was said."""
        with contextlib.suppress(AssertionError):
            self.wait_for(unwanted, timeout=seconds)
            return False
        return True


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="bicorn-") as directory:
        made = Manager(directory)
        yield made
        made.sock.close()


Start = Callable[..., Server]


@pytest.fixture
def start(serve: Serve, manager: Manager) -> Start:
    """Start Bicorn under the manager."""

    def starter(app: str, *args: str, env: dict[str, str] | None = None, **options: object) -> Server:
        return serve(app, *args, env={**manager.env, **(env or {})}, **options)  # type: ignore[arg-type]  # passed on

    return starter


def test_ready_is_said_when_all_workers_are(start: Start, manager: Manager, gate: Gate) -> None:
    config = (
        "import gated\ndef post_worker_init(worker):\n    gated.app({'PATH_INFO': '/'}, lambda status, headers: None)\n"
    )
    server = start("hello:app", "-w", "2", config=config, env=gate.env)
    gate.wait_started()
    gate.wait_started()
    manager.wait_for("STATUS=Starting, 0 of 2 workers ready")
    gate.release()
    heard = manager.wait_for("STATUS=Starting, 1 of 2 workers ready")
    assert "READY=1" not in heard
    gate.release()
    manager.wait_for("READY=1", "STATUS=Serving, 2 of 2 workers ready")
    assert server.stop() == 0


def test_a_server_that_cannot_boot_never_says_that_it_is_ready(start: Start, manager: Manager) -> None:
    server = start("nowhere:app", wait=False)
    assert server.wait_exit() != 0
    heard = manager.wait_for("STOPPING=1")
    assert "READY=1" not in heard


def test_a_reload_is_announced_and_ends_with_ready(start: Start, manager: Manager) -> None:
    server = start("hello:app")
    manager.wait_for("READY=1", "STATUS=Serving")
    before = time.monotonic_ns() // 1000
    server.signal(signal.SIGHUP)
    heard = manager.wait_for("RELOADING=1", "MONOTONIC_USEC=", "READY=1", "STATUS=Serving, 1 of 1")
    (usec,) = [int(line.removeprefix("MONOTONIC_USEC=")) for line in heard if line.startswith("MONOTONIC_USEC=")]
    assert before <= usec <= time.monotonic_ns() // 1000


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("mine.py", "raise RuntimeError('no such table')", "RuntimeError: no such table"),
        ("server.conf.py", "raise ValueError('a\\nREADY=0')", "a"),
    ],
)
def test_a_reload_that_fails_is_told_in_the_status(
    start: Start, manager: Manager, file: str, text: str, says: str
) -> None:
    server = start("mine:app", config="", files={"mine.py": "from hello import app"})
    manager.wait_for("READY=1", "STATUS=Serving")
    (server.directory / file).write_text(text)
    server.signal(signal.SIGHUP)
    heard = manager.wait_for(
        "RELOADING=1", "READY=1", "STATUS=Serving as before, 1 of 1 workers ready; the last reload"
    )
    (status,) = [line for line in heard if line.startswith("STATUS=Serving as before")]
    assert says in status
    assert not any(line.startswith("READY=0") for line in heard)
    # One that works takes it back.
    (server.directory / file).write_text("from hello import app" if file == "mine.py" else "")
    server.signal(signal.SIGHUP)
    manager.wait_for("RELOADING=1", "READY=1", "STATUS=Serving, 1 of 1")


def test_a_stop_that_takes_its_time_asks_for_more(start: Start, manager: Manager, gate: Gate) -> None:
    server = start("gated:app", env=gate.env)
    manager.wait_for("READY=1")
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
        gate.wait_started()
        server.signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000", "STATUS=Stopping, 1 workers left")
        manager.wait_for("EXTEND_TIMEOUT_USEC=15000000")  # again, five seconds later
        gate.release()
    assert server.wait_exit() == 0


def test_what_a_busy_manager_had_no_room_for_is_said_later(start: Start, manager: Manager) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
        other.setblocking(False)
        for _ in range(10_000):
            other.sendto(b"X=1", manager.env["NOTIFY_SOCKET"])
    server = start("hello:app", "--log-level", "debug")
    server.wait_for_ready(1)
    assert server.get("/").status == 200
    manager.wait_for("STATUS=Starting", "READY=1", "STATUS=Serving, 1 of 1")


# -- the watchdog ----------------------------------------------------------------------------------


def test_the_watchdog_is_fed_while_workers_are_healthy(start: Start, manager: Manager) -> None:
    app = "import os\nif os.path.exists('broken'): os._exit(7)\nfrom hello import app\n"
    server = start("mine:app", env={"WATCHDOG_USEC": "600000"}, files={"mine.py": app})
    manager.wait_for("READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
    (worker,) = server.wait_for_workers(1)
    (server.directory / "broken").touch()
    os.kill(worker, signal.SIGKILL)
    manager.wait_for("STATUS=Serving, 0 of 1 workers ready")
    assert manager.is_silent_about("WATCHDOG=1", 1.5)
    (server.directory / "broken").unlink()
    manager.wait_for("STATUS=Serving, 1 of 1 workers ready", "WATCHDOG=1")


def test_the_watchdog_is_not_fed_for_a_worker_that_hangs(start: Start, manager: Manager) -> None:
    server = start("hello:app", "-t", "2", env={"WATCHDOG_USEC": "200000"})
    manager.wait_for("READY=1", "WATCHDOG=1")
    (worker,) = server.wait_for_workers(1)
    suspend(worker)
    manager.wait_for("STATUS=Serving, 0 of 1")
    assert "WATCHDOG=1" not in manager.wait_for("STATUS=Serving, 1 of 1")


def test_the_watchdog_of_another_process_is_not_ours(start: Start, manager: Manager) -> None:
    start("hello:app", env={"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    manager.wait_for("READY=1")
    assert manager.is_silent_about("WATCHDOG=1", 1)


# -- two arbiters ----------------------------------------------------------------------------------


def test_in_an_upgrade_the_old_one_speaks_until_it_hands_over(serve: Serve, start: Start, manager: Manager) -> None:
    server = start("hello:app", env={"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "old"}, launcher=("-c", WATCHED))
    manager.wait_for("READY=1", "STATUS=Serving, 1 of 1")
    server.signal(signal.SIGUSR2)
    server.wait_for_log(r"the workers of the new arbiter \(pid \d+\) are ready")
    new = int(server.wait_for_log(r"Started the new arbiter \(pid: (\d+)\)")[1])
    server.signal(signal.SIGTERM)
    heard = manager.wait_for(f"MAINPID={new}")
    assert not any(line.startswith(("STOPPING", "READY", "RELOADING")) for line in heard)
    assert server.process.wait(DEADLINE_S) == 0
    manager.wait_for("READY=1", "STATUS=Serving, 1 of 1", "WATCHDOG=1")
    os.kill(new, signal.SIGTERM)
    manager.wait_for("STOPPING=1")


#: WATCHDOG_PID is the pid of the very process that systemd starts.
WATCHED = (
    "import os, runpy\n"
    "if os.environ['WATCHDOG_PID'] == 'old': os.environ['WATCHDOG_PID'] = str(os.getpid())\n"
    "runpy.run_module('bicorn', run_name='__main__')\n"
)


# -- the units that are shipped --------------------------------------------------------------------

UNITS = sorted((ROOT / "examples" / "systemd").glob("*.s*"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_are_what_systemd_understands(unit: Path, tmp_path: Path) -> None:
    try:
        subprocess.run(["systemd-analyze", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no systemd-analyze on this machine")
    # The commands that they name are not installed here; everything else is looked at as it stands.
    for each in UNITS:
        text = each.read_text().replace("/srv/app/.venv/bin/", "/bin/").replace("/bin/bicornctl", "/bin/true")
        (tmp_path / each.name).write_text(text.replace("/bin/bicorn ", "/bin/true ").replace("User=app", "User=root"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in checked.stderr.splitlines() if "bicorn" in line]
    assert (checked.returncode, complaints) == (0, [])


def test_there_are_units() -> None:
    assert [unit.name for unit in UNITS] == ["bicorn.service", "bicorn.socket"]
