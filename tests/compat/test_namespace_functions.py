"""The functions and validators of the namespace beside the real ones: the same calls, the same results."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gunicorn.config as their_config
import gunicorn.util as theirs
import pytest

from bicorn.compat.gunicorn import config, sock, systemd, util
from bicorn.compat.gunicorn.reloader import reloader_engines
from bicorn.workers.sync import SyncWorker

CALLS: dict[str, list[tuple[Any, ...]]] = {
    "get_arity": [(os.path.join,), (lambda: None,), (lambda a, b=1: None,)],
    "getcwd": [()],
    "has_fileno": [(object(),), (None,), (b"",)],
    "is_ipv6": [("::1",), ("127.0.0.1",), ("localhost",), ("fe80::1",)],
    "parse_address": [
        ("127.0.0.1:80",), ("",), ("unix:/tmp/s",), ("unix:///tmp/s",), ("fd://3",), ("[::1]:1",), ("Localhost",),
        ("tcp://h:1",), ("h", "81"), ("h:x",), ("fd://x",),
    ],
    "split_request_uri": [("/a?b#c",), ("//a/b?c",), ("http://h/a",), ("*",), ("",)],
    "http_date": [(0,), (1_700_000_000,)],
    "to_bytestring": [("é",), (b"x",), ("é", "latin-1"), (1,)],
    "bytes_to_str": [("é",), (b"\xe9",)],
    "is_hoppish": [("Connection",), (" server ",), ("X-A",)],
    "check_is_writable": [("/nowhere/file",), (os.devnull,)],
    "unlink": [("/nowhere/file",), ("/dev/null/file",)],
    "load_class": [("nowhere.Class",), ("quick",), (int,), ("egg:nowhere#x",)],
    "hop_headers.__contains__": [("te",), ("trailers",), ("trailer",), ("x",)],
}  # fmt: skip
VALIDATORS: dict[str, list[object]] = {
    "validate_bool": [None, True, "true", " False ", "yes", 1],
    "validate_dict": [{"a": 1}, None, []],
    "validate_pos_int": [0, "0x10", True, -1, "x"],
    "validate_string": [None, " a ", 1],
    "validate_list_string": [None, "a", ["a ", "b"], [1]],
    "validate_string_to_list": [None, "a, b", ""],
    "validate_string_to_addr_list": ["*", "127.0.0.1,10.0.0.0/8", "x"],
    "validate_class": [int, "a.B", lambda: int, 1],
    "validate_user": [None, 0, "0", "root", "nobody at all"],
    "validate_group": [None, 0, "0", "root", "nobody at all"],
    "validate_chdir": ["/", "/nowhere"],
    "validate_file_exists": [None, "/", "/nowhere"],
    "validate_statsd_address": [None, "h:1", "h", "unix:///s", "unix:8"],
    "validate_reload_engine": ["auto", "poll", "x"],
}


def outcome(function: Callable[..., object], *arguments: object) -> object:
    """What a call gives; an exception counts as one, whatever its text."""
    try:
        return function(*arguments)
    except Exception:  # noqa: BLE001  # the real one raises many kinds
        return Exception


def found(module: object, name: str) -> Callable[..., object]:
    """The function of a dotted name."""
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    function: Callable[..., object] = value
    return function


@pytest.mark.parametrize(("name", "arguments"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_a_function_gives_what_gunicorns_gives(name: str, arguments: tuple[object, ...]) -> None:
    assert outcome(found(util, name), *arguments) == outcome(found(theirs, name), *arguments)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALIDATORS.items() for value in values])
def test_a_validator_gives_what_gunicorns_gives(name: str, value: object) -> None:
    assert outcome(getattr(config, name), value) == outcome(getattr(their_config, name), value)


def test_a_validator_of_callables_counts_parameters() -> None:
    validate = config.validate_callable(1)
    assert validate("os.path.basename") is os.path.basename
    for wrong in (lambda: None, "nowhere.at_all", 1):
        assert outcome(validate, wrong) is Exception


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("write", (b"abc",)), ("write", (b"abc", True)), ("write_chunk", ("é",)), ("write_nonblock", (b"abc", True))],
)
def test_what_is_written_is_the_same(name: str, arguments: tuple[object, ...]) -> None:
    assert written(found(util, name), *arguments) == written(found(theirs, name), *arguments)


def test_an_error_page_is_framed_and_escaped() -> None:
    page = written(util.write_error, 400, "Bad <Request>", "<script>")
    head, _, body = page.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad <Request>\r\nConnection: close\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"<script>" not in body and b"&lt;script&gt;" in body


def written(function: Callable[..., object], *arguments: object) -> bytes:
    """What arrives at the other end."""
    here, there = socket.socketpair()
    with here, there:
        function(here, *arguments)
        util.close(here)
        return there.recv(65536)


def test_classes_are_found_by_name() -> None:
    assert util.load_class("sync") is SyncWorker
    assert util.load_class("gunicorn.workers.sync.SyncWorker") is SyncWorker
    assert util.load_class("bicorn.observe.log.Logger", section="gunicorn.loggers").__name__ == "Logger"  # type: ignore[attr-defined]  # a class


def test_what_was_caught_is_raised_again() -> None:
    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as caught:
        util.reraise(ValueError, error, None)
    assert caught.value is error


def test_a_failed_application_answers_with_500() -> None:
    seen: list[object] = []
    assert util.make_fail_app("é")({}, lambda *head: seen.append(head)) == ["é".encode()]
    assert seen == [("500 Internal Server Error", [("Content-Type", "text/plain"), ("Content-Length", "2")])]


def test_descriptors_are_set(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)
    util.close_on_exec(descriptor)
    util.set_non_blocking(descriptor)
    assert (os.get_inheritable(descriptor), os.get_blocking(descriptor)) == (False, False)
    os.close(descriptor)
    util.unlink(str(tmp_path / "file"))
    assert not (tmp_path / "file").exists()


def test_sockets_are_made_from_a_config(tmp_path: Path) -> None:
    made = config.Config()
    made.set("bind", [f"unix:{tmp_path}/s", "127.0.0.1:0"])
    listeners = sock.create_sockets(made, log=None)  # type: ignore[arg-type]  # only written to when something fails
    assert [str(listener).partition(":")[0] for listener in listeners] == ["unix", "http"]
    sock.close_sockets(listeners)
    assert not (tmp_path / "s").exists()


def test_nobody_listens_for_systemd_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert (systemd.listen_fds(unset_environment=False), systemd.listen_fds(), systemd.listen_fds()) == (2, 2, 0)


def test_reloaders_have_gunicorns_names() -> None:
    import gunicorn.reloader

    assert reloader_engines.keys() == gunicorn.reloader.reloader_engines.keys()
    watcher = reloader_engines["poll"](extra_files=["/nowhere"], callback=print)
    assert watcher.daemon
