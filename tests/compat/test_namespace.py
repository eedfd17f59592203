"""`import gunicorn` inside a Bicorn process, beside the real Gunicorn that is installed here."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import bicorn.compat.gunicorn as ours
from bicorn.compat.namespace import ABSENT
from bicorn.config import Settings
from harness.server import Serve, Server, wait_until

SERVER_FIELD = "Server"


def python(program: str, **variables: str) -> str:
    """Run a program of a few lines in a process of its own and give what it prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def modules() -> list[str]:
    """Every module of the namespace, without the package's own name in front."""
    found = pkgutil.walk_packages(ours.__path__, f"{ours.__name__}.")
    return [module.name.removeprefix(f"{ours.__name__}.") for module in found]


# -- the finder ------------------------------------------------------------------------------------


def test_a_process_that_only_imports_bicorn_keeps_the_real_one() -> None:
    program = "import bicorn.cli.main, bicorn.compat.namespace, gunicorn; print(gunicorn.__file__)"
    assert "site-packages" in python(program)


def test_a_module_is_one_object_under_both_names() -> None:
    program = (
        "from bicorn.compat import namespace; namespace.install(); namespace.install()\n"
        "import sys, gunicorn.workers.base, gunicorn.util\n"
        "import bicorn.compat.gunicorn.workers.base as base, bicorn.compat.gunicorn as package\n"
        "assert gunicorn is package and gunicorn.workers.base is base\n"
        "assert base.__spec__.name == base.__name__ == 'bicorn.compat.gunicorn.workers.base'\n"
        "print(sum(type(finder).__name__ == 'AliasFinder' for finder in sys.meta_path))"
    )
    assert python(program) == "1"


def test_what_was_imported_of_the_real_one_is_not_mixed_in() -> None:
    program = (
        "import gunicorn.workers.base as theirs\n"
        "from bicorn.compat import namespace; namespace.install()\n"
        "import gunicorn.workers.base as base, bicorn.workers.base as ours\n"
        "assert base.Worker is ours.Worker is not theirs.Worker\n"
        "namespace.remove()\n"
        "import gunicorn.workers.base as again\n"
        "print(again.__file__)"
    )
    assert "site-packages" in python(program)


def test_finders_in_front_see_the_names() -> None:
    program = (
        "import sys\n"
        "class Spy:\n"
        "    seen = []\n"
        "    def find_spec(self, name, path=None, target=None): self.seen.append(name)\n"
        "sys.meta_path.insert(0, Spy())\n"
        "from bicorn.compat import namespace; namespace.install()\n"
        "import gunicorn.app.base\n"
        "print('gunicorn.app.base' in Spy.seen)"
    )
    assert python(program) == "True"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gunicorn.dirty.app", "gunicorn.dirty is not in Bicorn's gunicorn namespace: the pool of task processes"),
        ("gunicorn.http.message", "gunicorn.http is not in Bicorn's gunicorn namespace: requests are read by native"),
        ("gunicorn.nothing", "gunicorn.nothing is not in Bicorn's gunicorn namespace; see docs/reference"),
    ],
)
def test_what_is_absent_says_so(name: str, words: str) -> None:
    program = (
        "from bicorn.compat import namespace; namespace.install()\n"
        f"try: import {name}\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert words in python(program)


# -- the surface, held against the real one --------------------------------------------------------


#: Dropped in Gunicorn 26; its name is still written in configurations.
GONE = "workers.geventlet"


@pytest.mark.parametrize("name", [name for name in modules() if name != GONE])
def test_the_names_of_a_module_are_gunicorns(name: str) -> None:
    module = importlib.import_module(f"{ours.__name__}.{name}")
    theirs = importlib.import_module(f"gunicorn.{name}")
    defined = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    public = {key for key in getattr(module, "__all__", defined) if not key.startswith("_")}
    if name == "config":  # The settings that only we have are described by classes as well.
        own = {setting for setting, declared in Settings.declarations().items() if declared.ours}
        public = {key for key in public if getattr(getattr(module, key), "name", None) not in own}
    assert {key for key in public if not hasattr(theirs, key)} == set()


def test_every_absent_module_is_one_of_gunicorns() -> None:
    assert [name for name in ABSENT if importlib.util.find_spec(name) is None] == []


def test_the_settings_are_gunicorns_and_ours() -> None:
    import gunicorn.config as theirs

    from bicorn.compat.gunicorn import config

    ours_by_class = {known.__name__: known.name for known in config.KNOWN_SETTINGS}
    assert {known.__name__: known.name for known in theirs.KNOWN_SETTINGS}.items() <= ours_by_class.items()
    assert config.AccessLogFormat.default == theirs.AccessLogFormat.default
    assert theirs.make_settings().keys() <= config.make_settings().keys()
    assert "timeout" not in config.make_settings(ignore=["timeout"])


def test_a_config_can_be_filled() -> None:
    from bicorn.compat.gunicorn.config import Config

    config = Config("usage", prog="shop")
    config.set("default_proc_name", "market")
    config.settings["workers"].set("3")
    assert (config.workers, config.settings["workers"].get(), config.proc_name) == (3, 3, "market")
    assert (config.usage, config.prog, config.settings["backlog"].value) == ("usage", "shop", 2048)
    assert config.parser().parse_args(["-w", "2"]).workers == 2
    config.validate()
    with pytest.raises(AttributeError, match="Invalid access"):
        config.workers = 4
    for call in (lambda: config.unheard_of, lambda: config.set("unheard_of", 1)):
        with pytest.raises(AttributeError, match="No configuration setting for: unheard_of"):
            call()


# -- in a server -----------------------------------------------------------------------------------


def test_a_configuration_file_gets_ours(serve: Serve) -> None:
    config = "import gunicorn.workers.base as b, bicorn.workers.base as o\nprint('same:', b.Worker is o.Worker)\n"
    server = serve("hello:app", config=config)
    server.wait_for_log("same: True", stream="stdout")


@pytest.mark.parametrize(("assigned", "field"), [("shop", "shop"), ("", None)])
def test_an_assigned_server_name_is_in_the_answers(serve: Serve, assigned: str, field: str | None) -> None:
    server = serve("hello:app", config=f"import gunicorn\ngunicorn.SERVER = {assigned!r}\n")
    assert server.get("/").header(SERVER_FIELD) == field


def test_without_an_assignment_the_name_is_ours(serve: Serve) -> None:
    server = serve("hello:app", config="import gunicorn\nassert gunicorn.SERVER == 'bicorn'\n")
    assert server.get("/").header(SERVER_FIELD) == "bicorn"


def test_a_setting_wins_over_an_assignment(serve: Serve) -> None:
    server = serve("hello:app", "--server-header", "mine", config="import gunicorn\ngunicorn.SERVER = 'shop'\n")
    assert server.get("/").header(SERVER_FIELD) == "mine"


def test_a_server_name_that_is_no_field_value_is_refused(serve: Serve) -> None:
    server = serve("hello:app", config="import gunicorn\ngunicorn.SERVER = 'a\\r\\nX: 1'\n", wait=False)
    assert server.wait_exit() == 1
    assert r"server_header = 'a\r\nX: 1' (gunicorn.SERVER) is not allowed" in server.log


def test_an_assignment_that_is_gone_is_gone_after_a_reload(serve: Serve) -> None:
    server = serve("hello:app", "--log-level", "debug", config="import gunicorn\ngunicorn.SERVER = 'shop'\n")
    assert server.get("/").header(SERVER_FIELD) == "shop"
    (server.directory / "server.conf.py").write_text("")
    before = server.worker_pids()
    server.signal(signal.SIGHUP)
    server.wait_for_workers(1, without=before)
    assert server.get("/").header(SERVER_FIELD) == "bicorn"


def test_a_configuration_may_name_worker_classes(serve: Serve) -> None:
    config = (
        "from gunicorn.workers import SUPPORTED_WORKERS\n"
        "SUPPORTED_WORKERS['plain'] = 'plain_worker.PlainWorker'\nworker_class = 'plain'\n"
    )
    server = serve("hello:app", config=config)
    assert server.get("/").status == 200
    server.wait_for_log("Using worker: plain")


@pytest.mark.parametrize(
    ("module", "base"), [("sync", "SyncWorker"), ("gthread", "ThreadWorker"), ("ggevent", "GeventWorker")]
)
def test_an_override_that_nobody_calls_is_warned_of(serve: Serve, module: str, base: str) -> None:
    mine = (
        f"from gunicorn.workers.{module} import {base}\n"
        f"class Mine({base}):\n    def handle_request(self, *args):\n        raise AssertionError\n"
        f"class Plain({base}):\n    def handle_error(self, *args):\n        pass\n"
    )
    server = serve("hello:app", "-k", "mine.Mine", files={"mine.py": mine})
    assert server.get("/").status == 200
    server.wait_for_log(r"\[WARNING\] mine\.Mine overrides handle_request\(\), which is never called: native code")
    quiet = serve("hello:app", "-k", "mine.Plain", files={"mine.py": mine})
    assert quiet.get("/").status == 200
    assert "overrides" not in quiet.log


@pytest.mark.parametrize("name", ["gunicorn.workers.sync.SyncWorker", "plain_worker:PlainWorker"])
def test_a_worker_class_may_be_named_so(serve: Serve, name: str) -> None:
    assert serve("hello:app", "-k", name).get("/").status == 200


WHICH = "import gunicorn\nprint('gunicorn is', gunicorn.__file__, flush=True)\n"


def which(server: Server) -> str:
    """Where the module is that an import of gunicorn gave."""
    return server.wait_for_log(r"gunicorn is (\S+)", stream="stdout")[1]


def test_the_flag_gives_the_application_the_real_one(serve: Serve) -> None:
    files = {"mine.py": f"{WHICH}from hello import app\n"}
    assert "bicorn/compat" in which(serve("mine:app", files=files))
    assert "site-packages" in which(serve("mine:app", "--no-gunicorn-namespace", files=files))


def test_the_variable_gives_the_configuration_the_real_one(serve: Serve) -> None:
    assert "bicorn/compat" in which(serve("hello:app", config=WHICH))
    server = serve("hello:app", config=WHICH, env={"BICORN_NO_GUNICORN_NAMESPACE": "1"})
    assert "site-packages" in which(server)


def test_a_class_of_the_real_one_is_refused_with_the_reason(serve: Serve) -> None:
    server = serve("hello:app", "-k", "uvicorn_worker.UvicornWorker", "--no-gunicorn-namespace", wait=False)
    assert server.wait_exit() == 1
    assert "its base is the real Gunicorn's Worker" in server.log


def test_nothing_is_written_beside_the_real_one(serve: Serve) -> None:
    import gunicorn

    directory = Path(gunicorn.__file__).parent
    before = sorted(path.name for path in directory.iterdir())
    server = serve("hello:app", config="import gunicorn.arbiter\n")
    wait_until(lambda: server.get("/").status == 200, "an answer")
    assert sorted(path.name for path in directory.iterdir()) == before
