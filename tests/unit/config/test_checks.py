"""What is refused when all values are there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bicorn.config import Settings
from bicorn.errors import ConfigError

Load = Callable[..., Settings]


# For each setting of a feature that is not there, a value in a file that asks for it.
ASKING = {
    **dict.fromkeys(("keyfile", "certfile", "ca_certs", "ciphers", "control_socket", "root_path"), "'x'"),
    **dict.fromkeys(("dogstatsd_tags", "statsd_prefix", "ssl_version"), "'x'"),
    **dict.fromkeys(("spew", "do_handshake_on_connect", "enable_backlog_metric"), "True"),
    **dict.fromkeys(("asgi_disconnect_grace_period", "websocket_max_message_size", "cert_reqs"), "1"),
    **dict.fromkeys(("http2_max_concurrent_streams", "http2_initial_window_size", "http2_max_header_list_size"), "1"),
    **dict.fromkeys(("dirty_workers", "dirty_timeout", "dirty_graceful_timeout"), "2"),
    **dict.fromkeys(("dirty_apps",), "['a=b']"),
    **dict.fromkeys(("on_dirty_starting", "dirty_worker_init"), "lambda server: None"),
    **dict.fromkeys(("ssl_context", "dirty_post_fork", "dirty_worker_exit"), "lambda a, b: None"),
    "asgi_loop": "'uvloop'",
    "asgi_lifespan": "'off'",
    "http_parser": "'fast'",
    "protocol": "'uwsgi'",
    "suppress_ragged_eofs": "False",
    "statsd_host": "'localhost'",
    "http_protocols": "'h2,h1'",
    "http2_cleartext": "True",
    "http2_max_frame_size": "16385",
    "dirty_threads": "2",
    "control_socket_mode": "0",
}
ABSENT = [name for name, setting in Settings.declarations().items() if setting.absent is not None]


@pytest.mark.parametrize("name", ABSENT)
def test_a_feature_that_is_not_there_is_refused_in_one_line(load: Load, name: str) -> None:
    absent = Settings.declarations()[name].absent
    assert absent is not None
    with pytest.raises(ConfigError) as caught:
        load(files={"bicorn.conf.py": f"{name} = {ASKING[name]}"})
    message = str(caught.value)
    assert message.startswith(f"{name} = ")
    assert f"(bicorn.conf.py, line 1) asks for {absent.feature}, which" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    ["keyfile = None", "proxy_protocol = False", "proxy_protocol = 'off'", "cert_reqs = 0", "http_protocols = 'h1'",
     "statsd_host = None", "reuse_port = False", "suppress_ragged_eofs = True", "threads = 1", "protocol = 'http'",
     "proxy_allow_ips = '*'", "control_socket = 'x'\ncontrol_socket_disable = True", "root_path = ''"],
)  # fmt: skip
def test_what_asks_for_nothing_is_accepted(load: Load, text: str) -> None:
    load(files={"bicorn.conf.py": text})


def test_it_is_refused_wherever_it_comes_from(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"keyfile = 'k' \(--keyfile in GUNICORN_CMD_ARGS\) asks for TLS"):
        load(GUNICORN_CMD_ARGS="--keyfile k")
    with pytest.raises(ConfigError, match=r"http_parser = 'fast' \(--http-parser\) asks for a choice of HTTP parsers"):
        load("run:app", "--http-parser", "fast")


def test_more_threads_than_one_ask_for_gthread(load: Load) -> None:
    assert load("--threads", "4").worker_class_str == "gthread"
    assert load("--threads", "4", "-k", "gevent").worker_class_str == "gevent"


@pytest.mark.parametrize("name", ["sync", "gunicorn.workers.sync.SyncWorker", "bicorn.workers.sync.SyncWorker"])
def test_the_sync_worker_has_several_names(load: Load, name: str) -> None:
    assert load("-k", name).worker_class_str == name


@pytest.mark.parametrize("name", ["package.module.Worker", "egg:distribution#name", "gthread", "quick"])
def test_whether_a_worker_class_exists_is_left_to_the_registry(load: Load, name: str) -> None:
    assert load("-k", name).worker_class == name


def test_a_worker_class_may_be_a_class(load: Load) -> None:
    settings = load(files={"bicorn.conf.py": "class Mine: ...\nworker_class = Mine"})
    assert settings.worker_class_str == "Mine"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-k", "gthread", "--threads", "0"], r"threads = 0 \(--threads\) is not allowed: a gthread worker needs"),
        (["-b", "localhost:http"], "'http' is not a port .*HOST:PORT"),
        (["-b", "::1"], "needs brackets"),
        (["-b", "8000"], r"bind = \['8000'\] \(--bind\) is not allowed: a port alone is written ':8000'"),
        (
            ["-e", "NAME"],
            r"raw_env = \['NAME'\] \(--env\) is not allowed: 'NAME' has no value; each has to be KEY=VALUE",
        ),
        (["--worker-tmp-dir", "gone"], r"worker_tmp_dir = 'gone' \(--worker-tmp-dir\) .* a directory that exists"),
    ],
)
def test_values_are_checked_before_they_are_used(load: Load, argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(*argv)


def test_every_fault_is_told_at_once(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("-b", "8000", "-e", "NAME", "--keyfile", "k")
    assert [line.split(" = ")[0] for line in str(caught.value).splitlines()] == ["keyfile", "bind", "raw_env"]


def test_every_fault_begins_with_the_name_of_the_command() -> None:
    command = [sys.executable, "-m", "bicorn", "-b", "8000", "-e", "NAME", "hello:app"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["bicorn: bind", "bicorn: raw_env"]


def test_the_address_of_statsd_is_shown_as_it_is_written(load: Load) -> None:
    for written, shown in (("stats", "stats:8125"), ("[::1]:99", "[::1]:99"), ("unix:///run/s", "/run/s")):
        with pytest.raises(ConfigError) as caught:
            load("--statsd-host", written)
        assert str(caught.value).startswith(f"statsd_host = '{shown}' (--statsd-host) asks for")


def test_something_has_to_be_listened_on(load: Load) -> None:
    with pytest.raises(ConfigError, match="nothing would be listened on"):
        load(files={"bicorn.conf.py": "bind = []"})
    assert load(LISTEN_FDS="1").bind == []


def test_the_directory_of_uploads_counts_from_chdir(load: Load, tmp_path: Path) -> None:
    (tmp_path / "sub" / "uploads").mkdir(parents=True)
    assert load("--chdir", "sub", files={"bicorn.conf.py": "tmp_upload_dir = 'uploads'"}).tmp_upload_dir == "uploads"
    with pytest.raises(ConfigError, match="tmp_upload_dir"):
        load()
