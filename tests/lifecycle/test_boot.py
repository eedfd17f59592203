"""A server that starts, and one that cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.server import Serve, Server, wait_until

Start = Callable[..., Server]


def test_it_listens_forks_and_answers(start: Start) -> None:
    server = start("hello:app", "-w", "2")
    assert server.get("/").body == b"Hello, world!"
    assert len(server.wait_for_workers(2)) == 2
    assert f"Listening at: {server.url} ({server.pid})" in server.log
    assert "Starting bicorn" in server.log and "Using worker: " in server.log
    for pid in server.worker_pids():
        server.wait_for_log(f"Booting worker with pid: {pid}")


def test_the_processes_have_titles(start: Start) -> None:
    server = start("hello:app", "--name", "shop")
    server.get("/")
    assert _title(server.pid) == "bicorn: master [shop]"
    assert [_title(pid) for pid in server.worker_pids()] == ["bicorn: worker [shop]"]


def test_a_class_object_of_a_configuration_file_is_a_worker_class(serve: Serve) -> None:
    config = "from plain_worker import PlainWorker\nworker_class = PlainWorker\n"
    server = serve("hello:app", config=config)
    assert server.get("/").status == 200
    assert "Using worker: PlainWorker" in server.log


WORKER_THAT_RAISES = (
    "from bicorn.workers.sync import SyncWorker\n"
    "class Worker(SyncWorker):\n"
    "    def __init__(self, *arguments):\n"
    "        raise LookupError('no such shelf')\n"
)


@pytest.mark.parametrize("more", [(), ("--preload",)])
def test_a_worker_class_that_cannot_be_made_ends_the_server_with_its_name(serve: Serve, more: tuple[str, ...]) -> None:
    server = serve(
        "hello:app", "-w", "2", "-k", "shelf.Worker", *more, files={"shelf.py": WORKER_THAT_RAISES}, wait=False
    )
    assert server.wait_exit() == 255  # As with Gunicorn.
    said = "worker_class = 'shelf.Worker' (--worker-class): making a worker raised LookupError: no such shelf\n"
    _, _, rest = server.log.partition(said)
    traceback, _, _ = rest.partition("\n[")
    assert traceback.startswith("Traceback") and traceback.endswith("LookupError: no such shelf")
    assert traceback.count("File ") == 1 and "shelf.py" in traceback
    assert server.log.count(said) == 1 and "Unhandled exception" not in server.log


def test_raw_env_reaches_the_application(start: Start) -> None:
    app = "import os\nfrom hello import app\nprint('the colour is', os.environ['COLOUR'], flush=True)\n"
    server = start("mine:app", "-e", "COLOUR=green", files={"mine.py": app})
    server.wait_for_log("the colour is green", stream="stdout")


FAILING = {
    "missing module": ("nowhere:app", {}, 3, "Worker failed to boot."),
    "missing name": ("hello:nothing", {}, 4, "App failed to load."),
    "import error": ("broken:app", {"broken.py": "import nowhere\n"}, 3, "Worker failed to boot."),
    "raising": ("broken:app", {"broken.py": "1 / 0\n"}, 3, "Worker failed to boot."),
    "syntax error": ("broken:app", {"broken.py": "def\n"}, 3, "Worker failed to boot."),
}


@pytest.mark.parametrize(("app", "files", "code", "reason"), FAILING.values(), ids=FAILING.keys())
def test_a_first_boot_that_fails_ends_the_server(
    start: Start, app: str, files: dict[str, str], code: int, reason: str
) -> None:
    server = start(app, "-w", "2", files=files)
    assert server.wait_exit() == code
    assert f"Reason: {reason}" in server.log and "Shutting down: Master" in server.log
    assert f"exited with code {code}." in server.log


def test_the_cause_is_in_the_log_without_our_frames(start: Start) -> None:
    server = start("broken:app", files={"broken.py": "def f():\n    return {}['x']\nf()\n"})
    server.wait_exit()
    assert "KeyError: 'x'" in server.log and "in f" in server.log
    assert "bicorn/arbiter" not in server.log and "importlib" not in server.log


def test_an_asgi_application_is_told_what_to_do(serve: Serve) -> None:
    server = serve("mine:app", "-k", "sync", files={"mine.py": "async def app(scope, receive, send): ...\n"})
    assert server.wait_exit() == 4
    assert "is an ASGI application" in server.log


REFUSED = {
    "unknown option": (["--no-such-option"], 2),
    "value out of range": (["--workers", "-3"], 1),
    "no such file": (["-c", "nowhere.py"], 1),
    "unknown worker class": (["-k", "nonsense"], 1),
}


@pytest.mark.parametrize(("arguments", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_configuration_that_is_wrong_is_refused(serve: Serve, arguments: list[str], code: int) -> None:
    server = serve("hello:app", *arguments, wait=False)
    assert server.wait_exit() == code
    assert "Traceback" not in server.log


def test_no_application_is_one_line(serve: Serve) -> None:
    server = serve(None, wait=False)
    assert server.wait_exit() == 1
    assert server.log.startswith("bicorn: No application")


@pytest.mark.parametrize(("app", "code"), [("hello:app", 0), ("hello:nothing", 1), ("nowhere:app", 1)])
def test_check_config_loads_the_application(serve: Serve, app: str, code: int) -> None:
    assert serve(app, "--check-config", wait=False).wait_exit() == code


def test_print_config_says_where_values_come_from(serve: Serve) -> None:
    server = serve("hello:app", "--print-config", config="workers = 3\n", wait=False)
    assert server.wait_exit() == 0
    line = next(line for line in server.stdout.splitlines() if line.startswith("workers "))
    assert "= 3" in line and "server.conf.py" in line


def test_a_pid_file_lives_as_long_as_the_server(start: Start) -> None:
    server = start("hello:app", "-p", "server.pid")
    file = server.directory / "server.pid"
    assert file.read_text() == f"{server.pid}\n"
    assert server.stop() == 0
    assert not file.exists()


def test_the_pid_file_of_a_living_process_is_respected(serve: Serve) -> None:
    server = serve("hello:app", "-p", "server.pid", files={"server.pid": f"{os.getpid()}\n"}, wait=False)
    assert server.wait_exit() == 1
    assert f"already running on PID {os.getpid()}" in server.log
    assert (server.directory / "server.pid").read_text() == f"{os.getpid()}\n"


def test_a_stale_pid_file_is_replaced(start: Start) -> None:
    server = start("hello:app", "-p", "server.pid", files={"server.pid": "999999999\n"})
    assert (server.directory / "server.pid").read_text() == f"{server.pid}\n"


def test_a_daemon_leaves_the_terminal(start: Start) -> None:
    server = start("hello:app", "--daemon", "-p", "d.pid", "--log-file", "d.log", wait=False)
    assert server.process.wait(20) == 0
    file, log = server.directory / "d.pid", server.directory / "d.log"
    pid = int(file.read_text())  # It listens when the command returns.
    assert "Listening at: " in log.read_text()
    try:
        assert os.getsid(pid) != os.getsid(0) and os.getsid(pid) != pid
        assert os.readlink(f"/proc/{pid}/fd/0") == os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
        wait_until(lambda: log.exists() and "Booting worker" in log.read_text(), "the daemon's worker")
    finally:
        os.kill(pid, 15)
    wait_until(lambda: not file.exists(), "the daemon's end")
    assert "Shutting down: Master" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--log-file", "d.log", "-p", "taken.pid"), "already running on PID"),
        (("--log-file", "nowhere/d.log"), "Cannot write to the log file"),
        (("--log-file", "d.log", "-c", "raising.py"), "The server ended before it listened; its error log"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(serve: Serve, arguments: tuple[str, ...], reason: str) -> None:
    files = {"taken.pid": f"{os.getpid()}\n", "raising.py": "def on_starting(server): 1 / 0\n"}
    server = serve("hello:app", "--daemon", *arguments, files=files, wait=False)
    assert server.wait_exit() == 1
    assert reason in server.log
    assert "Traceback" not in server.log
    if arguments[1] == "d.log":
        assert reason in (log := (server.directory / "d.log").read_text()) or "ZeroDivisionError" in log


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


ASYNCHRONOUS = "async def create(): ...\n"


@pytest.mark.parametrize("more", [("-k", "asgi"), ()])
def test_an_asynchronous_factory_is_refused_at_start(serve: Serve, more: tuple[str, ...]) -> None:
    server = serve("mine:create", *more, files={"mine.py": ASYNCHRONOUS}, wait=False)
    assert server.wait_exit() == 4
    assert "'mine:create' is a coroutine function without parameters, so it is a factory, and the asgi" in server.log


@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent", "tornado"])
def test_a_class_that_was_given_is_the_one_that_refuses_an_asynchronous_factory(serve: Serve, worker: str) -> None:
    for check, code in (((), 4), (("--check-config",), 1)):
        server = serve("mine:create", "-k", worker, *check, files={"mine.py": ASYNCHRONOUS}, wait=False)
        assert server.wait_exit() == code
        assert f"so it is a factory, and the {worker} worker serves WSGI. Start with" in server.log
        assert "ASGI application" not in server.log


def test_an_asynchronous_factory_is_called_no_asgi_application(serve: Serve) -> None:
    server = serve("mine:create", files={"mine.py": ASYNCHRONOUS}, wait=False)
    assert server.wait_exit() == 4
    assert "so it is a factory" in server.log and "is an ASGI application" not in server.log


def test_an_asynchronous_factory_that_is_called_says_what_to_write(serve: Serve) -> None:
    server = serve("mine:create()", files={"mine.py": ASYNCHRONOUS}, wait=False)
    assert server.wait_exit() == 4
    assert "the factory 'create' is asynchronous" in server.log and "write 'mine:create' and start" in server.log
    assert "never awaited" not in server.log


def test_an_aiohttp_application_is_refused_by_the_asgi_worker(serve: Serve) -> None:
    files = {"mine.py": "from aiohttp.web import Application\napp = Application()\n"}
    for check, code in (((), 4), (("--check-config",), 1)):
        server = serve("mine:app", "-k", "asgi", *check, files=files, wait=False)
        assert server.wait_exit() == code
        assert "'mine:app' is an aiohttp application and the asgi worker serves ASGI and WSGI. Start" in server.log
