"""Programs, loggers and hooks that were written for Gunicorn, run by Bicorn."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from harness.server import Serve, Server, wait_until

PROJECTS = Path(__file__).parent / "projects"


def project(*names: str) -> dict[str, str]:
    """The files of some projects."""
    return {f"{name}.py": (PROJECTS / f"{name}.py").read_text() for name in names}


def run_program(serve: Serve, name: str, *arguments: str, wait: bool = True, **files: str) -> Server:
    """Run a program that embeds the server, as `python -m bicorn.compat NAME.py`."""
    launcher = ("-m", "bicorn.compat", f"{name}.py", *arguments)
    extra = {f"{stem}.py": text for stem, text in files.items()}
    return serve(None, bind=None, launcher=launcher, files={**project(name), **extra}, wait=wait)


# -- programs --------------------------------------------------------------------------------------


def test_the_documented_example_of_embedding_serves(serve: Serve) -> None:
    server = run_program(serve, "standalone")
    assert server.get("/").body == b"Works fine"
    server.wait_for_workers(2)
    assert server.stop() == 0


def test_an_embedded_server_reloads(serve: Serve) -> None:
    server = run_program(serve, "standalone")
    before = server.wait_for_workers(2)
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=before)
    assert server.get("/").body == b"Works fine"
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('{"workers": "many"}', "Error: workers = 'many' (cfg.set() of the program) is not allowed"),
        ('{"certfile": "x"}', "asks for TLS, which only the tornado worker class has"),
    ],
)
def test_a_program_that_sets_what_cannot_be_is_told(serve: Serve, options: str, words: str) -> None:
    program = f"from standalone import StandaloneApplication\nStandaloneApplication(None, {options}).run()\n"
    launcher = ("-m", "bicorn.compat", "mine.py")
    server = serve(None, bind=None, launcher=launcher, files={**project("standalone"), "mine.py": program}, wait=False)
    assert server.wait_exit() == 1
    assert words in server.log


def test_run_is_the_command_line(serve: Serve) -> None:
    program = "from gunicorn.app.wsgiapp import run\nrun()\n"
    launcher = ("-m", "bicorn.compat", "mine.py")
    server = serve("hello:app", "-w", "2", launcher=launcher, files={"mine.py": program})
    assert server.get("/").status == 200
    before = server.wait_for_workers(2)
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=before)
    assert server.stop() == 0


def test_run_needs_an_application(serve: Serve) -> None:
    program = "from gunicorn.app.wsgiapp import run\nrun()\n"
    server = serve(None, launcher=("-m", "bicorn.compat", "mine.py"), files={"mine.py": program}, wait=False)
    assert server.wait_exit() == 1
    assert "Error: No application module specified." in server.log


def test_a_module_can_be_the_program(serve: Serve) -> None:
    launcher = ("-m", "bicorn.compat", "-m", "gunicorn.app.wsgiapp")
    assert serve("hello:app", launcher=launcher).get("/").status == 200


def test_a_program_declares_settings_of_its_own(serve: Serve) -> None:
    server = run_program(serve, "own_settings", "market", "--repeat", "3", "-b", "127.0.0.1:0", "-c", "conf.py",
                         conf="from own_settings import post_fork\nrepeat = 2\nworkers = 1\n")  # fmt: skip
    assert server.get("/").body == b"hello hello hello "
    server.wait_for_log("server is an arbiter: True repeat: 3", stream="stdout")
    assert len(server.worker_pids()) == 1, "the configuration file counts more than what init() returned"


def test_what_init_returns_counts_more_than_the_defaults(serve: Serve) -> None:
    server = run_program(serve, "own_settings", "-b", "127.0.0.1:0")
    server.wait_for_workers(2)
    assert server.get("/").body == b"hello "


def test_a_wrong_value_of_an_own_setting_is_explained(serve: Serve) -> None:
    server = run_program(serve, "own_settings", "--repeat", "-1", wait=False)
    assert server.wait_exit() == 1
    assert "Error: repeat = -1 (--repeat) is not allowed" in server.log


def test_a_patched_arbiter_is_the_one_that_runs(serve: Serve) -> None:
    config = (
        "from gunicorn.arbiter import Arbiter\nstart = Arbiter.start\n"
        "def patched(self):\n    print('patched start', flush=True)\n    return start(self)\n"
        "Arbiter.start = patched\n"
    )
    serve("hello:app", config=config).wait_for_log("patched start", stream="stdout")


def test_the_launcher_says_how_it_is_used(serve: Serve) -> None:
    server = serve(None, bind=None, launcher=("-m", "bicorn.compat"), wait=False)
    assert server.wait_exit() == 2
    assert "usage: python -m bicorn.compat SCRIPT" in server.log


# -- loggers and hooks -----------------------------------------------------------------------------


def test_a_subclass_of_the_logger_writes_both_logs(serve: Serve) -> None:
    server = serve(
        "hello:app", "--logger-class", "json_logger.JsonLogger", "--access-logfile", "access.log",
        "--access-logformat", "%(m)s %(U)s %(s)s %(shop)s", files=project("json_logger"),
    )  # fmt: skip
    server.get("/health")
    server.get("/one", headers={"X-Shop": "blue"})
    path = server.directory / "access.log"
    wait_until(lambda: path.read_text(), "an access line")
    assert path.read_text() == "A|GET /one 200 blue\n"
    assert "E|INFO|Listening at: http://127.0.0.1:" in server.log


HOOK = (
    "from prometheus_client import multiprocess\n"
    "def child_exit(server, worker): multiprocess.mark_process_dead(worker.pid)\n"
)


def test_counters_of_several_processes_survive_their_workers(serve: Serve, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    server = serve(
        "metrics:app", "-w", "2", "--log-level", "debug", config=HOOK,
        files=project("metrics"), env={"PROMETHEUS_MULTIPROC_DIR": str(metrics)},
    )  # fmt: skip
    before = server.wait_for_ready(2)
    for _ in range(5):
        server.get("/")
    assert values(server) == {"visits_total": 5.0, "alive": 2.0}
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, without=before)
    wait_until(lambda: values(server)["alive"] == 2.0, "the workers of before are no longer counted")
    assert values(server)["visits_total"] == 5.0
    assert not [path for pid in before for path in metrics.glob(f"gauge_live*_{pid}.db")]


def values(server: Server) -> dict[str, float]:
    """The metrics that the application shows."""
    found = re.findall(r"^(\w+) ([\d.]+)$", server.get("/metrics").text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_the_tests_beside_it_see_the_real_one() -> None:
    """The oracle of these tests is not what they test."""
    import gunicorn

    assert "bicorn" not in (gunicorn.__file__ or "")
    assert "bicorn.compat.gunicorn" not in str(sys.modules["gunicorn"])
