"""The application's start and end, and what a failure of either means."""

from __future__ import annotations

import json
import signal

import pytest

from harness.server import Serve

CHANGING = """
async def app(scope, receive, send):
    await receive()
    await send({'type': 'lifespan.startup.complete'})
    await receive()
"""


def test_the_state_of_the_startup_is_in_every_request_as_a_copy(serve: Serve) -> None:
    server = serve("asgi_lives:app")
    server.wait_for_log("started", stream="stdout")
    for _ in range(2):
        assert json.loads(server.get("/").body) == ["added", "pid", "shared"]
    assert server.stop() == 0
    assert server.stdout.splitlines() == ["started", "ended"]


def test_the_shutdown_is_awaited_when_told_to_stop_at_once(serve: Serve) -> None:
    server = serve("asgi_lives:app")
    server.wait_for_log("started", stream="stdout")
    assert server.stop(signal.SIGINT) == 0
    assert server.stdout.splitlines() == ["started", "ended"]


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("failing", "The application failed to start .lifespan.: the database is not there"),
        ("raising", "ZeroDivisionError: in the startup"),
        ("hanging", r"did not answer lifespan.startup within 1 seconds \(lifespan_startup_timeout\)"),
    ],
)
def test_an_application_that_cannot_start_ends_the_first_start(serve: Serve, app: str, words: str) -> None:
    server = serve(f"asgi_lives:{app}", "--asgi-lifespan", "on", "--lifespan-startup-timeout", "1", wait=False)
    assert server.wait_exit() == 3
    server.wait_for_log(words)


def test_a_stop_during_the_startup_cancels_it(serve: Serve) -> None:
    server = serve("asgi_lives:hanging", "--asgi-lifespan", "on", wait=False)
    server.wait_for_log("hanging", stream="stdout")
    assert server.stop() == 0
    assert server.stdout.splitlines() == ["hanging", "cancelled"]
    assert "Traceback" not in server.log
    assert "destroyed" not in server.log


@pytest.mark.parametrize("turns", range(7))
def test_a_stop_as_the_startup_completes_is_followed_by_a_shutdown(serve: Serve, turns: int) -> None:
    server = serve("asgi_lives:stopped_as_it_starts", "-e", f"TURNS={turns}", wait=False)
    server.wait_for_log("Worker exiting")
    server.stop()
    # Two workers may have come so far, or been stopped before.
    assert server.stdout.replace("complete\nlifespan.shutdown\n", "") == ""
    assert "Traceback" not in server.log


def test_an_application_that_cannot_start_any_more_leaves_the_old_workers(serve: Serve) -> None:
    server = serve("changing:app", "--asgi-lifespan", "on", "--log-level", "debug", files={"changing.py": CHANGING})
    (before,) = server.wait_for_ready(1)
    broken = CHANGING.replace("complete'", "failed', 'message': 'broken now'")
    (server.directory / "changing.py").write_text(broken)
    server.signal(signal.SIGHUP)
    server.wait_for_log("broken now")
    server.wait_for_log("(?i)reload.*(fail|abandon|kept|go on)")
    assert server.worker_pids() == [before]


def test_auto_takes_a_raise_for_no_lifespan_and_off_does_not_ask(serve: Serve) -> None:
    auto = serve("asgi_routes:app")
    auto.wait_for_log("The application has no lifespan: NotImplementedError")
    assert auto.get("/hello").status == 200
    off = serve("asgi_lives:app", "--asgi-lifespan", "off")
    assert json.loads(off.get("/").body) == ["added"]
    assert off.stop() == 0
    assert off.stdout == ""


def test_a_failed_shutdown_is_logged(serve: Serve) -> None:
    server = serve("asgi_lives:failing_at_the_end", "--log-level", "debug")
    server.wait_for_ready(1)
    assert server.stop() == 0
    assert "failed to shut down (lifespan): the queue is stuck" in server.log


def test_asgi2_is_served(serve: Serve) -> None:
    assert serve("asgi_lives:Twice").get("/").body == b"twice"
