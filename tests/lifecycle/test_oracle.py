"""The same configuration and application given to Bicorn and to the real Gunicorn: what can be seen must agree."""

from __future__ import annotations

import os
import re
import signal
from collections import defaultdict
from collections.abc import Callable

import pytest

from harness.gate import Gate
from harness.server import Kind, Serve, Server, wait_until

HOOKS = """
import os

def record(name, *values):
    with open("hooks.txt", "a") as file:
        file.write(f"{os.getpid()} {name} {' '.join(map(str, values))}\\n")

def on_starting(server): record("on_starting", server.num_workers, len(server.WORKERS), server.proc_name)
def on_reload(server): record("on_reload", server.num_workers)
def when_ready(server): record("when_ready", len(server.LISTENERS), server.pid == os.getpid(), server.master_pid)
def pre_fork(server, worker): record("pre_fork", worker.pid, worker.age, len(server.WORKERS))
def post_fork(server, worker): record("post_fork", worker.pid == os.getpid(), worker.booted, worker.alive)
def post_worker_init(worker): record("post_worker_init", worker.booted, callable(worker.wsgi), worker.nr)
def worker_int(worker): record("worker_int", worker.alive)
def worker_abort(worker): record("worker_abort", worker.alive)
def pre_request(worker, req): record("pre_request", req.method, req.path, req.uri)
def post_request(worker, req, environ, resp):
    # Of a request that was aborted before start_response, Gunicorn gives no status; Bicorn gives what was sent, 500.
    status = resp.status if str(resp.status).startswith("2") else "none or an error"
    record("post_request", req.method, environ["PATH_INFO"], status)
def child_exit(server, worker): record("child_exit", worker.pid in server.WORKERS, isinstance(worker.pid, int))
def worker_exit(server, worker): record("worker_exit", worker.pid == os.getpid())
def nworkers_changed(server, new, old): record("nworkers_changed", new, old, len(server.WORKERS))
def on_exit(server): record("on_exit", len(server.WORKERS), len(server.LISTENERS))
"""
BOTH: tuple[Kind, ...] = ("bicorn", "gunicorn")


def hooks_by_process(server: Server) -> list[list[str]]:
    """Give the hooks that were called, process by process: the order between two processes means nothing."""
    calls: dict[str, list[str]] = defaultdict(list)
    for line in (server.directory / "hooks.txt").read_text().splitlines():
        pid, _, call = line.partition(" ")
        calls[pid].append(call.strip())
    return list(calls.values())


def run_one_request(server: Server, gate: Gate) -> None:
    assert server.get("/free?a=b").status == 200
    server.stop()


def run_quit(server: Server, gate: Gate) -> None:
    assert server.get("/free").status == 200
    server.stop(signal.SIGQUIT)


def run_reload(server: Server, gate: Gate) -> None:
    assert server.get("/free").status == 200
    old = server.wait_for_workers(1)
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, without=old)
    assert server.get("/free").status == 200
    server.stop()


def run_scale(server: Server, gate: Gate) -> None:
    assert server.get("/free").status == 200
    first = server.wait_for_workers(1)
    server.signal(signal.SIGTTIN)
    server.wait_for_workers(2)
    wait_until(lambda: sum("post_worker_init" in str(calls) for calls in hooks_by_process(server)) == 2, "two workers")
    if server.kind == "bicorn":
        server.wait_for_ready(2)  # One that is not ready yet would be the first to go.
    server.signal(signal.SIGTTOU)
    server.wait_for_workers(1, without=first)
    server.stop()


def run_abort(server: Server, gate: Gate) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        gate.wait_started()
        server.wait_for_log("WORKER TIMEOUT")
    server.wait_for_log("Booting worker with pid", count=2)
    assert server.get("/free").status == 200
    server.stop()


RUNS: dict[str, tuple[Callable[[Server, Gate], None], tuple[str, ...]]] = {
    "one request": (run_one_request, ()),
    "quit": (run_quit, ()),
    "reload": (run_reload, ()),
    "scale": (run_scale, ("--log-level", "debug")),
    "abort": (run_abort, ("-t", "2")),
}


@pytest.mark.parametrize(("run", "arguments"), RUNS.values(), ids=RUNS.keys())
def test_hooks_are_called_at_the_same_moments(
    serve: Serve, gate: Gate, run: Callable[[Server, Gate], None], arguments: tuple[str, ...]
) -> None:
    seen = []
    for kind in BOTH:
        server = serve("gated:app", *arguments, config=HOOKS, kind=kind, env=gate.env)
        run(server, gate)
        seen.append(hooks_by_process(server))
    ours, theirs = seen
    assert ours == theirs


# A hook that raises, and what both servers exit with when nothing has been served yet.
RAISING = ["on_starting", "when_ready", "pre_fork", "post_fork", "post_worker_init", "nworkers_changed"]


def exit_code(serve: Serve, kind: Kind, app: str, *arguments: str, config: str | None, files: dict[str, str]) -> int:
    return serve(app, *arguments, config=config, kind=kind, files=files, wait=False).wait_exit()


@pytest.mark.parametrize("hook", RAISING)
def test_a_hook_that_raises_while_starting_ends_both_alike(serve: Serve, hook: str) -> None:
    config = f"def {hook}({', '.join('abc'[: HOOK_ARGUMENTS[hook]])}):\n    raise ValueError('in the hook')\n"
    codes = [exit_code(serve, kind, "hello:app", config=config, files={}) for kind in BOTH]
    assert codes[0] == codes[1]


HOOK_ARGUMENTS = {
    "on_starting": 1,
    "when_ready": 1,
    "pre_fork": 2,
    "post_fork": 2,
    "post_worker_init": 1,
    "nworkers_changed": 3,
}

FAILURES: dict[str, tuple[str, list[str], str | None, dict[str, str]]] = {
    "missing module": ("nowhere:app", [], None, {}),
    "missing name": ("hello:nothing", [], None, {}),
    "not callable": ("mine:app", [], None, {"mine.py": "app = 1\n"}),
    "raising": ("mine:app", [], None, {"mine.py": "1 / 0\n"}),
    "syntax error": ("mine:app", [], None, {"mine.py": "def\n"}),
    "exits with 4": ("mine:app", [], None, {"mine.py": "import os\nos._exit(4)\n"}),
    "factory that raises": ("mine:make()", [], None, {"mine.py": "def make(): raise OSError\n"}),
    "missing module, preloaded": ("nowhere:app", ["--preload"], None, {}),
    "missing name, preloaded": ("hello:nothing", ["--preload"], None, {}),
    "raising, preloaded": ("mine:app", ["--preload"], None, {"mine.py": "1 / 0\n"}),
    "unknown option": ("hello:app", ["--nonsense"], None, {}),
    "bad value": ("hello:app", ["--workers", "many"], None, {}),
    "negative workers": ("hello:app", ["--workers", "-1"], None, {}),
    "config file missing": ("hello:app", ["-c", "nowhere.py"], None, {}),
    "config file raises": ("hello:app", [], "1 / 0\n", {}),
    "config value": ("hello:app", [], "timeout = 'x'\n", {}),
    "no application": ("", [], None, {}),
    "unknown worker class": ("hello:app", ["-k", "nonsense"], None, {}),
    "check good": ("hello:app", ["--check-config"], None, {}),
    "check bad": ("nowhere:app", ["--check-config"], None, {}),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_failures_end_with_the_same_code(
    serve: Serve, failure: tuple[str, list[str], str | None, dict[str, str]]
) -> None:
    app, arguments, config, files = failure
    codes = [exit_code(serve, kind, app, *arguments, config=config, files=files) for kind in BOTH]
    assert codes[0] == codes[1]


LINE = re.compile(r"^\[[^\]]+\] \[(\d+)\] \[(\w+)\] (.*)$", re.MULTILINE)


def lines_by_process(server: Server) -> list[list[tuple[str, str]]]:
    """Give level and text of each line, process by process in the order of their start, without what differs anyway."""
    lines: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for pid, level, text in LINE.findall(server.log):
        text = re.sub(r"(was sent SIGKILL!) .*", r"\1", text)  # Gunicorn guesses why, we look.
        text = re.sub(r"\b\d{2,}\b", "N", text.replace("gunicorn", "bicorn"))
        lines[int(pid)].append((level, re.sub(r"bicorn [\w.]+", "bicorn VERSION", text)))
    return [lines[pid] for pid in sorted(lines)]


def log_stop(server: Server, gate: Gate) -> None:
    server.get("/free")
    server.stop()


def log_reload(server: Server, gate: Gate) -> None:
    run_reload(server, gate)


def log_killed(server: Server, gate: Gate) -> None:
    server.get("/free")
    (victim,) = server.wait_for_workers(1)
    os.kill(victim, signal.SIGKILL)
    server.wait_for_workers(1, without=[victim])
    server.get("/free")
    server.stop()


LOGS: dict[str, Callable[[Server, Gate], None]] = {
    "stop": log_stop,
    "reload": log_reload,
    "worker killed": log_killed,
}


@pytest.mark.parametrize("run", LOGS.values(), ids=LOGS.keys())
def test_log_lines_agree(serve: Serve, gate: Gate, run: Callable[[Server, Gate], None]) -> None:
    logs = []
    for kind in BOTH:
        server = serve("gated:app", kind=kind, env=gate.env)
        run(server, gate)
        logs.append(lines_by_process(server))
    assert logs[0] == logs[1]
